// The status that a pod's object shows: phase, conditions and containers, written whenever one of them changes. The
// times in it have whole seconds only, as Kubernetes keeps them.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// report writes the status at each change until `ctx` ends.
func (p *pod) report(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.changed:
		}
		for !p.writeStatus() {
			select {
			case <-ctx.Done():
				return
			case <-time.After(retryInterval):
			}
		}
	}
}

// writeStatus is false if the API server could not be asked and it has to be tried again.
func (p *pod) writeStatus() bool {
	if p.isGone() {
		return true
	}
	status := p.status()
	if p.reported != nil && equality.Semantic.DeepEqual(status, p.reported) {
		return true
	}
	object := p.current()
	_, err := p.agent.client.CoreV1().Pods(object.Namespace).Patch(context.Background(), object.Name,
		types.StrategicMergePatchType, p.patch(status), metav1.PatchOptions{}, "status")
	if err == nil {
		p.reported = status
	} else if !isOver(err) {
		klog.ErrorS(err, "writing a status", "pod", object.Name)
		return false
	}
	return true
}

// patch leaves conditions of others as they are; addresses it replaces, which by themselves would be joined with those
// that a former agent wrote.
func (p *pod) patch(status *v1.PodStatus) []byte {
	encoded, err := json.Marshal(status)
	fields := map[string]any{}
	if err == nil {
		err = json.Unmarshal(encoded, &fields)
	}
	for _, list := range []string{"podIPs", "hostIPs"} {
		if addresses, given := fields[list].([]any); given {
			fields[list] = append([]any{map[string]any{"$patch": "replace"}}, addresses...)
		}
	}
	patch, problem := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.uid}, "status": fields})
	if err = errors.Join(err, problem); err != nil {
		panic(err) // of our own types
	}
	return patch
}

// isOver: the object is gone, or another has its name.
func isOver(err error) bool { return apierrors.IsNotFound(err) || apierrors.IsConflict(err) }

func (p *pod) status() *v1.PodStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	host := p.agent.nodes[p.object.Spec.NodeName].Address
	started := metav1.NewTime(p.started.Truncate(time.Second))
	status := &v1.PodStatus{
		ObservedGeneration: p.object.Generation,
		HostIP:             host, HostIPs: []v1.HostIP{{IP: host}}, StartTime: &started,
		Phase: p.phase(),
	}
	if p.sandbox != nil {
		address := p.sandbox.address.String()
		status.PodIP, status.PodIPs = address, []v1.PodIP{{IP: address}}
	}
	ready, initialized := true, true
	var unready, uninitialized []string
	for _, c := range p.inits {
		status.InitContainerStatuses = append(status.InitContainerStatuses, c.status())
		if c.state.Terminated == nil || c.state.Terminated.ExitCode != 0 {
			initialized, uninitialized = false, append(uninitialized, c.spec.Name)
		}
	}
	for _, c := range p.mains {
		status.ContainerStatuses = append(status.ContainerStatuses, c.status())
		if !c.ready {
			ready, unready = false, append(unready, c.spec.Name)
		}
	}
	over := status.Phase == v1.PodSucceeded || status.Phase == v1.PodFailed
	because := func(reason, format string, names []string) (string, string) {
		if over {
			return "PodCompleted", ""
		}
		return reason, fmt.Sprintf(format, names)
	}
	notReady, notReadyMessage := because("ContainersNotReady", "containers with unready status: %s", unready)
	notInit, notInitMessage := because("ContainersNotInitialized", "containers with incomplete status: %s", uninitialized)
	status.Conditions = []v1.PodCondition{
		p.condition("PodReadyToStartContainers", p.sandbox != nil && !over, "", ""),
		p.condition(v1.PodInitialized, initialized, notInit, notInitMessage),
		p.condition(v1.PodReady, ready && !over, notReady, notReadyMessage),
		p.condition(v1.ContainersReady, ready && !over, notReady, notReadyMessage),
	}
	return status
}

// condition keeps the time of its last transition.
func (p *pod) condition(kind v1.PodConditionType, holds bool, reason, message string) v1.PodCondition {
	condition := v1.PodCondition{
		Type: kind, Status: v1.ConditionTrue, LastTransitionTime: metav1.NewTime(time.Now().Truncate(time.Second)),
		ObservedGeneration: p.object.Generation,
	}
	if !holds {
		condition.Status, condition.Reason, condition.Message = v1.ConditionFalse, reason, message
	}
	if p.reported != nil {
		for _, before := range p.reported.Conditions {
			if before.Type == kind && before.Status == condition.Status {
				condition.LastTransitionTime = before.LastTransitionTime
			}
		}
	}
	return condition
}

func (c *container) status() v1.ContainerStatus {
	started := c.started
	status := v1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, State: c.state, LastTerminationState: c.last, RestartCount: c.restarts,
		Ready: c.ready, Started: &started,
	}
	if c.init {
		status.Ready = c.state.Terminated != nil && c.state.Terminated.ExitCode == 0
	}
	if c.process != nil {
		status.ContainerID, status.ImageID = c.process.id(), c.spec.Image
	}
	return status
}

// phase follows the kubelet's rules. A pod that was told to stop ends as succeeded or failed when its containers have.
func (p *pod) phase() v1.PodPhase {
	for _, c := range p.inits {
		terminated := c.state.Terminated
		if terminated != nil && terminated.ExitCode != 0 && p.object.Spec.RestartPolicy == v1.RestartPolicyNever {
			return v1.PodFailed
		}
	}
	waiting, running, failed, stopped := 0, 0, 0, 0
	for _, c := range p.mains {
		switch {
		case c.state.Running != nil:
			running++
		case c.state.Terminated != nil:
			stopped++
			if c.state.Terminated.ExitCode != 0 {
				failed++
			}
		case c.last.Terminated != nil: // between two runs
			stopped++
			failed++
		default:
			waiting++
		}
	}
	stopping := !p.deadline.IsZero()
	policy := p.object.Spec.RestartPolicy
	switch {
	case stopping && running == 0 && failed > 0:
		return v1.PodFailed
	case stopping && running == 0 && stopped > 0:
		return v1.PodSucceeded
	case stopping && running == 0:
		return v1.PodFailed
	case waiting > 0:
		return v1.PodPending
	case running > 0 || policy == v1.RestartPolicyAlways:
		return v1.PodRunning
	case failed == 0:
		return v1.PodSucceeded
	case policy == v1.RestartPolicyOnFailure:
		return v1.PodRunning
	}
	return v1.PodFailed
}
