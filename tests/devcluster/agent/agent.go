// The agent: it watches pods, Secrets and ConfigMaps and hands each change to the pod it is about. What happens to a
// pod is in pod.go; nothing here waits for one.
package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	listersv1 "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
)

type agent struct {
	config     *config
	client     kubernetes.Interface
	network    *network
	nodes      map[string]node
	recorders  map[string]record.EventRecorder
	secrets    listersv1.SecretLister
	configMaps listersv1.ConfigMapLister

	mu   sync.Mutex
	pods map[types.UID]*pod
}

func serve(ctx context.Context, settings *config) error {
	access, err := clientcmd.BuildConfigFromFlags("", settings.Kubeconfig)
	if err != nil {
		return err
	}
	access.QPS = -1 // two hundred pods that start at once must not wait for each other's status
	access.Wrap(func(plain http.RoundTripper) http.RoundTripper { return patient{plain} })
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return err
	}
	a := &agent{
		config: settings, client: client, network: newNetwork(settings), pods: map[types.UID]*pod{},
		nodes: map[string]node{}, recorders: map[string]record.EventRecorder{},
	}
	for _, node := range settings.Nodes {
		a.nodes[node.Name] = node
		events := record.NewBroadcaster()
		events.StartRecordingToSink(&typedv1.EventSinkImpl{Interface: client.CoreV1().Events("")})
		a.recorders[node.Name] = events.NewRecorder(scheme.Scheme, v1.EventSource{Component: "kubelet", Host: node.Name})
	}
	if err := serveKubelet(a); err != nil {
		return err
	}
	for _, node := range settings.Nodes {
		if err := a.register(ctx, node); err != nil {
			return fmt.Errorf("registering the node %s: %w", node.Name, err)
		}
	}
	return a.watch(ctx)
}

func (a *agent) watch(ctx context.Context) error {
	all := informers.NewSharedInformerFactory(a.client, 0)
	a.secrets, a.configMaps = all.Core().V1().Secrets().Lister(), all.Core().V1().ConfigMaps().Lister()
	for _, informer := range []cache.SharedIndexInformer{
		all.Core().V1().Secrets().Informer(), all.Core().V1().ConfigMaps().Informer(),
	} {
		informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    a.refresh,
			UpdateFunc: func(_, changed any) { a.refresh(changed) },
		})
	}
	watchServices(ctx, a.config, all)
	all.Start(ctx.Done())
	all.WaitForCacheSync(ctx.Done())

	mine := informers.NewSharedInformerFactoryWithOptions(a.client, 0, informers.WithTweakListOptions(
		func(options *metav1.ListOptions) {
			options.FieldSelector = fields.OneTermNotEqualSelector("spec.nodeName", "").String()
		}))
	mine.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { a.update(object.(*v1.Pod)) },
		UpdateFunc: func(_, object any) { a.update(object.(*v1.Pod)) },
		DeleteFunc: a.remove,
	})
	mine.Start(ctx.Done())
	<-ctx.Done()
	return nil
}

// update starts a pod that is new here and tells one that runs about its change.
func (a *agent) update(object *v1.Pod) {
	if _, ours := a.nodes[object.Spec.NodeName]; !ours {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if known := a.pods[object.UID]; known != nil {
		known.update(object)
		return
	}
	over := object.Status.Phase == v1.PodSucceeded || object.Status.Phase == v1.PodFailed
	if over && object.DeletionTimestamp == nil {
		return
	}
	fresh := newPod(a, object)
	a.pods[object.UID] = fresh
	go fresh.run()
}

// remove forgets a pod whose object is gone, and ends it if that was without a grace period. Not before: an update that
// is still on its way would make the pod anew.
func (a *agent) remove(object any) {
	if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = last.Obj
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	uid := object.(*v1.Pod).UID
	if known := a.pods[uid]; known != nil {
		known.vanished()
		delete(a.pods, uid)
	}
}

// find is the pod of that name, the newest if a predecessor is still on its way out.
func (a *agent) find(namespace, name string) *pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	var found *pod
	for _, candidate := range a.pods {
		object := candidate.current()
		if object.Namespace != namespace || object.Name != name {
			continue
		}
		if found == nil || found.current().CreationTimestamp.Before(&object.CreationTimestamp) {
			found = candidate
		}
	}
	return found
}

// refresh has the pods of a namespace look at their Secrets and ConfigMaps again.
func (a *agent) refresh(object any) {
	namespace := object.(metav1.Object).GetNamespace()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, candidate := range a.pods {
		if candidate.current().Namespace == namespace {
			notify(candidate.refresh)
		}
	}
}

// event is recorded as a kubelet's, about the pod or about one of its containers.
func (a *agent) event(object *v1.Pod, container, kind, reason, format string, args ...any) {
	reference := &v1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: object.Namespace, Name: object.Name, UID: object.UID,
		ResourceVersion: object.ResourceVersion,
	}
	if container != "" {
		reference.FieldPath = fmt.Sprintf("spec.containers{%s}", container)
	}
	a.recorders[object.Spec.NodeName].Eventf(reference, kind, reason, format, args...)
}

// notify wakes the reader of a channel of one place; a reader that is already to be woken is woken once.
func notify(channel chan struct{}) {
	select {
	case channel <- struct{}{}:
	default:
	}
}
