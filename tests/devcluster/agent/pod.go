// A pod, from the moment it is bound to one of our nodes until its object is gone: volumes, network, init
// containers, containers, and in the end its deletion, which the API server waits for us to confirm.
//
// One goroutine (run) goes through this in order. `ctx` ends when the pod has to stop; whatever waits, waits for
// that too.
package main

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// retryInterval is how often what is missing (a Secret, the API server) is looked for again.
const retryInterval = time.Second

type pod struct {
	agent   *agent
	uid     types.UID
	folder  string // volumes, logs and overlays
	ctx     context.Context
	stop    context.CancelFunc
	changed chan struct{} // the status has to be written
	refresh chan struct{} // a Secret or ConfigMap of the namespace changed

	mu       sync.Mutex
	object   *v1.Pod
	gone     bool          // the object is deleted; there is no one to report to
	deadline time.Time     // once stopping: when SIGKILL comes
	moved    chan struct{} // closed and replaced when the deadline moves
	started  time.Time
	sandbox  *sandbox
	volumes  map[string]*volume
	inits    []*container
	mains    []*container
	reported *v1.PodStatus
}

func newPod(a *agent, object *v1.Pod) *pod {
	ctx, stop := context.WithCancel(context.Background())
	p := &pod{
		agent: a, uid: object.UID, folder: filepath.Join(a.config.Folder, "pods", string(object.UID)), ctx: ctx, stop: stop,
		changed: make(chan struct{}, 1), refresh: make(chan struct{}, 1), moved: make(chan struct{}), started: time.Now(),
		object: object,
	}
	before := map[string]v1.ContainerStatus{}
	for _, status := range append(object.Status.InitContainerStatuses, object.Status.ContainerStatuses...) {
		before[status.Name] = status
	}
	for _, spec := range object.Spec.InitContainers {
		p.inits = append(p.inits, newContainer(p, spec, before[spec.Name], true))
	}
	for _, spec := range object.Spec.Containers {
		p.mains = append(p.mains, newContainer(p, spec, before[spec.Name], false))
	}
	if object.DeletionTimestamp != nil {
		p.stopBy(object)
	}
	return p
}

func (p *pod) current() *v1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.object
}

// update takes a newer object. A second delete may shorten the grace period.
func (p *pod) update(object *v1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.object = object
	if object.DeletionTimestamp != nil {
		p.stopBy(object)
	}
}

func (p *pod) stopBy(object *v1.Pod) {
	grace := time.Duration(0)
	if object.DeletionGracePeriodSeconds != nil {
		grace = time.Duration(*object.DeletionGracePeriodSeconds) * time.Second
	}
	// The object's DeletionTimestamp has whole seconds only, and would cut the grace period by up to one.
	if deadline := time.Now().Add(grace); p.deadline.IsZero() || deadline.Before(p.deadline) {
		p.deadline = deadline
		close(p.moved)
		p.moved = make(chan struct{})
	}
	p.stop()
}

// vanished: the object was removed by force. What still runs is killed.
func (p *pod) vanished() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone, p.deadline = true, time.Now()
	close(p.moved)
	p.moved = make(chan struct{})
	p.stop()
}

// untilDeadline waits for `done`; false if the grace period was over before.
func (p *pod) untilDeadline(done <-chan struct{}) bool {
	for {
		p.mu.Lock()
		deadline, moved := p.deadline, p.moved
		p.mu.Unlock()
		select {
		case <-done:
			return true
		case <-time.After(time.Until(deadline)):
			return false
		case <-moved:
		}
	}
}

// sleep is false if the pod has to stop before.
func (p *pod) sleep(duration time.Duration) bool {
	select {
	case <-p.ctx.Done():
		return false
	case <-time.After(duration):
		return true
	}
}

func (p *pod) run() {
	reporting, stopReporting := context.WithCancel(context.Background())
	reporter := make(chan struct{})
	go func() {
		defer close(reporter)
		p.report(reporting)
	}()
	notify(p.changed)
	if p.setUp() {
		go p.keepVolumes()
		if p.runInits() {
			p.runMains()
		}
	}
	notify(p.changed)
	<-p.ctx.Done()
	stopReporting()
	<-reporter
	p.tearDown()
	p.confirm()
}

// setUp makes the network and the volumes; false if the pod has to stop before they are there.
func (p *pod) setUp() bool {
	for p.ctx.Err() == nil {
		box, err := p.agent.network.open()
		if err == nil {
			p.mu.Lock()
			p.sandbox = box
			p.mu.Unlock()
			notify(p.changed)
			break
		}
		p.agent.event(p.current(), "", v1.EventTypeWarning, "FailedCreatePodSandBox",
			"Failed to create pod sandbox: %v", err)
		p.sleep(retryInterval)
	}
	for p.ctx.Err() == nil {
		volumes, failed, err := p.makeVolumes()
		if err == nil {
			p.mu.Lock()
			p.volumes = volumes
			p.mu.Unlock()
			return true
		}
		p.agent.event(p.current(), "", v1.EventTypeWarning, "FailedMount",
			"MountVolume.SetUp failed for volume %q : %v", failed, err)
		select {
		case <-p.ctx.Done():
		case <-p.refresh:
		case <-time.After(retryInterval):
		}
	}
	return false
}

// runInits runs the init containers one after another; false if one failed for good or the pod has to stop.
func (p *pod) runInits() bool {
	for _, c := range p.inits {
		c.run()
		if p.ctx.Err() != nil || !c.succeeded() {
			return false
		}
	}
	return true
}

// runMains runs the containers side by side, until none of them will run again.
func (p *pod) runMains() {
	var running sync.WaitGroup
	for _, c := range p.mains {
		running.Add(1)
		go func() {
			defer running.Done()
			c.run()
		}()
	}
	running.Wait()
}

func (p *pod) tearDown() {
	p.mu.Lock()
	box := p.sandbox
	p.mu.Unlock()
	if box != nil {
		box.close()
	}
}

// confirm writes the last status and removes the object, as the API server expects of a kubelet.
func (p *pod) confirm() {
	p.writeStatus()
	for !p.isGone() {
		zero := int64(0)
		err := p.agent.client.CoreV1().Pods(p.current().Namespace).Delete(context.Background(), p.current().Name,
			metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &p.uid}})
		if err == nil || isOver(err) {
			break
		}
		klog.ErrorS(err, "confirming a deletion", "pod", p.current().Name)
		time.Sleep(retryInterval)
	}
	os.RemoveAll(p.folder)
}

func (p *pod) isGone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone
}
