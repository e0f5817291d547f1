// Services: what kube-proxy does, by listening. Each TCP port of each cluster address has a listener as long as an
// endpoint is ready, so that without one a connection is refused, as kube-proxy refuses it. UDP is left out.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	listersv1 "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

type proxy struct {
	services listersv1.ServiceLister
	slices   discoverylisters.EndpointSliceLister
	changed  chan struct{}
	ports    map[string]*servicePort // by "address:port"
}

// servicePort is one listener.
type servicePort struct {
	listener net.Listener
	mu       sync.Mutex
	backends []string
	next     int
}

func watchServices(ctx context.Context, settings *config, factory informers.SharedInformerFactory) {
	p := &proxy{
		services: factory.Core().V1().Services().Lister(), slices: factory.Discovery().V1().EndpointSlices().Lister(),
		changed: make(chan struct{}, 1), ports: map[string]*servicePort{},
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { notify(p.changed) },
		UpdateFunc: func(any, any) { notify(p.changed) },
		DeleteFunc: func(any) { notify(p.changed) },
	}
	factory.Core().V1().Services().Informer().AddEventHandler(handler)
	factory.Discovery().V1().EndpointSlices().Informer().AddEventHandler(handler)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-p.changed:
				p.reconcile()
			}
		}
	}()
}

// reconcile opens and closes listeners so that they match the Services.
func (p *proxy) reconcile() {
	services, err := p.services.List(labels.Everything())
	if err != nil {
		klog.ErrorS(err, "listing services")
		return
	}
	wanted := map[string][]string{}
	for _, service := range services {
		if net.ParseIP(service.Spec.ClusterIP) == nil {
			continue
		}
		for _, port := range service.Spec.Ports {
			if port.Protocol != v1.ProtocolTCP {
				continue
			}
			if backends := p.backends(service, port.Name); len(backends) > 0 {
				wanted[net.JoinHostPort(service.Spec.ClusterIP, fmt.Sprint(port.Port))] = backends
			}
		}
	}
	for address, open := range p.ports {
		if wanted[address] == nil {
			open.listener.Close()
			delete(p.ports, address)
		}
	}
	for address, backends := range wanted {
		if open := p.ports[address]; open != nil {
			open.set(backends)
			continue
		}
		listener, err := net.Listen("tcp4", address)
		if err != nil {
			klog.ErrorS(err, "listening for a service", "address", address)
			continue
		}
		open := &servicePort{listener: listener, backends: backends}
		p.ports[address] = open
		go open.serve()
	}
}

func (p *proxy) backends(service *v1.Service, port string) []string {
	slices, err := p.slices.EndpointSlices(service.Namespace).List(
		labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: service.Name}))
	if err != nil {
		return nil
	}
	var backends []string
	for _, slice := range slices {
		for _, offered := range slice.Ports {
			if offered.Name == nil || *offered.Name != port || offered.Port == nil {
				continue
			}
			for _, endpoint := range slice.Endpoints {
				if endpoint.Conditions.Ready != nil && !*endpoint.Conditions.Ready {
					continue
				}
				for _, address := range endpoint.Addresses {
					backends = append(backends, net.JoinHostPort(address, strconv.Itoa(int(*offered.Port))))
				}
			}
		}
	}
	return backends
}

func (s *servicePort) set(backends []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.backends = backends
}

func (s *servicePort) choose() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	return s.backends[s.next%len(s.backends)]
}

func (s *servicePort) serve() {
	for {
		client, err := s.listener.Accept()
		if err != nil {
			return
		}
		go s.forward(client.(*net.TCPConn))
	}
}

func (s *servicePort) forward(client *net.TCPConn) {
	defer client.Close()
	connected, err := net.Dial("tcp4", s.choose())
	if err != nil {
		client.SetLinger(0) // a reset, as the pod itself would answer
		return
	}
	server := connected.(*net.TCPConn)
	defer server.Close()
	var both sync.WaitGroup
	both.Add(2)
	copyTo := func(to, from *net.TCPConn) {
		defer both.Done()
		if _, err := io.Copy(to, from); err != nil {
			// A broken half breaks the whole, as it does without a proxy in between.
			to.SetLinger(0)
			to.Close()
			from.Close()
			return
		}
		to.CloseWrite()
	}
	go copyTo(server, client)
	go copyTo(client, server)
	both.Wait()
}
