// A container's life: pull, start, probes, end, and again after a backoff if the pod's restart policy says so. The
// states and words are a kubelet's; the backoff is shorter and can be set. As there, the first restart is immediate.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type container struct {
	pod  *pod
	spec v1.Container
	init bool

	// Guarded by pod.mu.
	state    v1.ContainerState
	last     v1.ContainerState
	restarts int32
	ready    bool
	started  bool
	process  *process

	backoff time.Duration // of the next restart
	since   time.Time     // when the backoff grew last
}

// newContainer begins where a former agent ended: its processes died with it.
func newContainer(p *pod, spec v1.Container, before v1.ContainerStatus, init bool) *container {
	c := &container{pod: p, spec: spec, init: init, restarts: before.RestartCount, last: before.LastTerminationState}
	c.state.Waiting = &v1.ContainerStateWaiting{Reason: "ContainerCreating"}
	if len(p.object.Spec.InitContainers) > 0 {
		c.state.Waiting.Reason = "PodInitializing"
	}
	if running := before.State.Running; running != nil {
		c.restarts++
		c.last = v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
			ExitCode: 137, Reason: "ContainerStatusUnknown", Message: "The node agent was restarted",
			ContainerID: before.ContainerID, StartedAt: running.StartedAt, FinishedAt: metav1.Now(),
		}}
	}
	return c
}

// run returns when the container will not run again: it is done, or the pod has to stop.
func (c *container) run() {
	for c.pod.ctx.Err() == nil {
		found, ok := c.pull()
		if !ok {
			return
		}
		terminated, ok := c.once(found)
		if !ok {
			continue // it could not be started, and has waited
		}
		c.change(func() { c.state = v1.ContainerState{Terminated: terminated} })
		if c.pod.ctx.Err() != nil || !c.restartable(terminated.ExitCode) || !c.wait() {
			return
		}
		c.change(func() {
			c.restarts++
			c.last = v1.ContainerState{Terminated: terminated}
		})
	}
}

func (c *container) change(what func()) {
	c.pod.mu.Lock()
	what()
	c.pod.mu.Unlock()
	notify(c.pod.changed)
}

func (c *container) waiting(reason, message string) {
	c.change(func() {
		c.state = v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reason, Message: message}}
	})
}

func (c *container) event(kind, reason, format string, args ...any) {
	c.pod.agent.event(c.pod.current(), c.spec.Name, kind, reason, format, args...)
}

func (c *container) restartable(code int32) bool {
	switch c.pod.current().Spec.RestartPolicy {
	case v1.RestartPolicyNever:
		return false
	case v1.RestartPolicyOnFailure:
		return code != 0
	}
	return !c.init || code != 0
}

func (c *container) succeeded() bool {
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	return c.state.Terminated != nil && c.state.Terminated.ExitCode == 0
}

// pull finds the image; false if the pod has to stop before it appears.
func (c *container) pull() (*image, bool) {
	always := c.spec.ImagePullPolicy == v1.PullAlways
	backoff := c.shortest()
	for c.pod.ctx.Err() == nil {
		found, err := findImage(c.pod.agent.config.Images, c.spec.Image)
		var invalid invalidImageName
		switch {
		case err == nil && always:
			c.event(v1.EventTypeNormal, "Pulling", "Pulling image %q", c.spec.Image)
			c.event(v1.EventTypeNormal, "Pulled",
				"Successfully pulled image %q in 1ms (1ms including waiting). Image size: 1 bytes.", c.spec.Image)
			return found, true
		case err == nil:
			c.event(v1.EventTypeNormal, "Pulled", "Container image %q already present on machine", c.spec.Image)
			return found, true
		case errors.As(err, &invalid):
			c.event(v1.EventTypeWarning, "InspectFailed", "%v", err)
			c.event(v1.EventTypeWarning, "Failed", "Error: InvalidImageName")
			c.waiting("InvalidImageName", err.Error())
			c.pod.sleep(c.longest())
			continue
		case c.spec.ImagePullPolicy == v1.PullNever:
			message := fmt.Sprintf("Container image %q is not present with pull policy of Never", c.spec.Image)
			c.event(v1.EventTypeWarning, "ErrImageNeverPull", "%s", message)
			c.waiting("ErrImageNeverPull", message)
			c.pod.sleep(c.longest())
			continue
		}
		c.event(v1.EventTypeNormal, "Pulling", "Pulling image %q", c.spec.Image)
		c.event(v1.EventTypeWarning, "Failed", "Failed to pull image %q: %v", c.spec.Image, err)
		c.event(v1.EventTypeWarning, "Failed", "Error: ErrImagePull")
		c.waiting("ErrImagePull", err.Error())
		if !c.pod.sleep(backoff / 2) {
			break
		}
		c.event(v1.EventTypeNormal, "BackOff", "Back-off pulling image %q", c.spec.Image)
		c.event(v1.EventTypeWarning, "Failed", "Error: ImagePullBackOff")
		c.waiting("ImagePullBackOff", fmt.Sprintf("Back-off pulling image %q: ErrImagePull: %v", c.spec.Image, err))
		c.pod.sleep(backoff / 2)
		backoff = min(2*backoff, c.longest())
	}
	return nil, false
}

// once starts the container and waits for its end; false if it could not even be described to its process.
func (c *container) once(found *image) (*v1.ContainerStateTerminated, bool) {
	plan, err := c.plan(found)
	if err != nil {
		c.event(v1.EventTypeWarning, "Failed", "Error: %v", err)
		c.waiting("CreateContainerConfigError", err.Error())
		c.pod.sleep(retryInterval)
		return nil, false
	}
	c.event(v1.EventTypeNormal, "Created", "Container created")
	began := metav1.Now()
	p, err := launchProcess(c.pod.agent.config.PodProgram, plan, c.logFile(c.restarts), c.pod.sandbox.handle)
	if err != nil {
		c.event(v1.EventTypeWarning, "Failed", "Error: %v", err)
		return &v1.ContainerStateTerminated{
			ExitCode: 128, Reason: "StartError", Message: err.Error(), StartedAt: began, FinishedAt: metav1.Now(),
		}, true
	}
	c.event(v1.EventTypeNormal, "Started", "Container started")
	c.change(func() {
		c.process = p
		c.state = v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: metav1.Now()}}
		c.started = c.spec.StartupProbe == nil
		c.ready = c.started && c.spec.ReadinessProbe == nil
	})
	c.attend(p)
	code, reason := p.result()
	terminated := &v1.ContainerStateTerminated{
		ExitCode: code, Reason: reason, StartedAt: began, FinishedAt: metav1.Now(), ContainerID: p.id(),
	}
	if code != 0 && c.spec.TerminationMessagePolicy == v1.TerminationMessageFallbackToLogsOnError {
		terminated.Message = logTail(c.logFile(c.restarts))
	}
	c.change(func() { c.ready, c.started = false, false })
	os.RemoveAll(plan.Layer)
	return terminated, true
}

// attend probes the process until it ends, or ends it.
func (c *container) attend(p *process) {
	ctx, cancel := context.WithCancel(c.pod.ctx)
	defer cancel()
	unhealthy := make(chan unhealthy, 1)
	go c.probe(ctx, p, unhealthy)
	if limit, limited := c.spec.Resources.Limits[v1.ResourceMemory]; limited {
		go p.limitMemory(limit.Value())
	}
	select {
	case <-p.done:
	case <-c.pod.ctx.Done():
		c.event(v1.EventTypeNormal, "Killing", "Stopping container %s", c.spec.Name)
		p.terminate()
		if !c.pod.untilDeadline(p.done) {
			p.kill()
		}
	case sick := <-unhealthy:
		c.event(v1.EventTypeNormal, "Killing", "Container %s failed %s probe, will be restarted", c.spec.Name, sick.kind)
		p.terminate()
		select {
		case <-p.done:
		case <-time.After(sick.grace):
			p.kill()
		}
	}
	<-p.done
}

// wait is the pause before a restart; false if the pod has to stop.
func (c *container) wait() bool {
	// A container that has behaved for as long as this starts anew, as it does with a kubelet after ten minutes.
	if time.Since(c.since) > c.backoff+2*c.longest() {
		c.backoff, c.since = 0, time.Now()
	}
	pause := c.backoff
	c.backoff, c.since = min(max(2*c.backoff, c.shortest()), c.longest()), time.Now()
	if pause == 0 {
		return c.pod.ctx.Err() == nil
	}
	object := c.pod.current()
	name := fmt.Sprintf("%s_%s(%s)", object.Name, object.Namespace, object.UID)
	c.event(v1.EventTypeWarning, "BackOff", "Back-off restarting failed container %s in pod %s", c.spec.Name, name)
	c.change(func() {
		if c.state.Terminated != nil {
			c.last = v1.ContainerState{Terminated: c.state.Terminated}
		}
		c.state = v1.ContainerState{Waiting: &v1.ContainerStateWaiting{
			Reason:  "CrashLoopBackOff",
			Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", pause, c.spec.Name, name),
		}}
	})
	return c.pod.sleep(pause)
}

func (c *container) shortest() time.Duration {
	return time.Duration(c.pod.agent.config.BackoffS * float64(time.Second))
}

func (c *container) longest() time.Duration {
	return time.Duration(c.pod.agent.config.BackoffMaxS * float64(time.Second))
}

func (c *container) logFile(run int32) string {
	return filepath.Join(c.pod.folder, "logs", c.spec.Name, strconv.Itoa(int(run))+".log")
}
