// Nodes: registered with GPUs that do not exist, and alive by a Lease as a kubelet's are. Their capacity is a claim,
// too, so that what a test asks for is scheduled on any machine.
package main

import (
	"context"
	"runtime"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/component-helpers/apimachinery/lease"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

const kubernetesVersion = "v1.35.4"

// leaseS is shorter than a kubelet's 40 s, so that an agent that is back after a cut says so soon.
const leaseS = 15

// statusEvery is half of a kubelet's default: a test may wait for it.
const statusEvery = 5 * time.Second

func (a *agent) register(ctx context.Context, n node) error {
	nodes := a.client.CoreV1().Nodes()
	wanted := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: map[string]string{
		v1.LabelHostname: n.Name, v1.LabelOSStable: "linux", v1.LabelArchStable: runtime.GOARCH,
	}}}
	registered, err := nodes.Create(ctx, wanted, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		registered, err = nodes.Get(ctx, n.Name, metav1.GetOptions{})
	}
	if err != nil {
		return err
	}
	registered.Status = a.nodeStatus(n)
	if _, err := nodes.UpdateStatus(ctx, registered, metav1.UpdateOptions{}); err != nil {
		return err
	}
	go a.stayReady(ctx, n)
	own := func(held *coordinationv1.Lease) error {
		held.OwnerReferences = []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: registered.UID},
		}
		return nil
	}
	heartbeat := lease.NewController(clock.RealClock{}, a.client, n.Name, leaseS, func() {}, leaseS*time.Second/4,
		n.Name, v1.NamespaceNodeLease, own)
	go heartbeat.Run(ctx)
	return nil
}

// stayReady posts the status again when somebody took the node for lost: nobody but its kubelet says that it is there.
func (a *agent) stayReady(ctx context.Context, n node) {
	nodes := a.client.CoreV1().Nodes()
	post := func(ctx context.Context) {
		held, err := nodes.Get(ctx, n.Name, metav1.GetOptions{})
		if err != nil || isReady(held) {
			return
		}
		held.Status = a.nodeStatus(n)
		if _, err := nodes.UpdateStatus(ctx, held, metav1.UpdateOptions{}); err == nil {
			klog.InfoS("a node that was taken for lost is ready again", "node", n.Name)
		}
	}
	wait.UntilWithContext(ctx, post, statusEvery)
}

func isReady(held *v1.Node) bool {
	for _, condition := range held.Status.Conditions {
		if condition.Type == v1.NodeReady {
			return condition.Status == v1.ConditionTrue
		}
	}
	return false
}

func (a *agent) nodeStatus(n node) v1.NodeStatus {
	capacity := v1.ResourceList{
		v1.ResourceCPU:    resource.MustParse("64"),
		v1.ResourceMemory: resource.MustParse("256Gi"),
		v1.ResourcePods:   resource.MustParse("250"),
		"nvidia.com/gpu":  *resource.NewQuantity(n.GPUs, resource.DecimalSI),
	}
	now := metav1.Now()
	condition := func(kind v1.NodeConditionType, status v1.ConditionStatus, reason, message string) v1.NodeCondition {
		return v1.NodeCondition{
			Type: kind, Status: status, Reason: reason, Message: message, LastHeartbeatTime: now, LastTransitionTime: now,
		}
	}
	return v1.NodeStatus{
		Capacity: capacity, Allocatable: capacity,
		Conditions: []v1.NodeCondition{
			condition(v1.NodeReady, v1.ConditionTrue, "KubeletReady", "kubelet is posting ready status"),
			condition(v1.NodeMemoryPressure, v1.ConditionFalse, "KubeletHasSufficientMemory", "enough memory"),
			condition(v1.NodeDiskPressure, v1.ConditionFalse, "KubeletHasNoDiskPressure", "no disk pressure"),
			condition(v1.NodePIDPressure, v1.ConditionFalse, "KubeletHasSufficientPID", "enough process ids"),
		},
		Addresses: []v1.NodeAddress{
			{Type: v1.NodeInternalIP, Address: n.Address}, {Type: v1.NodeHostName, Address: n.Name},
		},
		DaemonEndpoints: v1.NodeDaemonEndpoints{
			KubeletEndpoint: v1.DaemonEndpoint{Port: int32(a.config.KubeletPort)},
		},
		NodeInfo: v1.NodeSystemInfo{
			KubeletVersion: kubernetesVersion, OperatingSystem: "linux", Architecture: runtime.GOARCH,
			OSImage: "SkyTorch devcluster", ContainerRuntimeVersion: "devcluster://1", MachineID: n.Name,
		},
	}
}
