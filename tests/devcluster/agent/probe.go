// Probes, by the kubelet's own probers: when each is asked, and what its thresholds lead to. Nothing here ends a
// process: the container that is told "unhealthy" does.
package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/probe"
	grpcprobe "k8s.io/kubernetes/pkg/probe/grpc"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
	tcpprobe "k8s.io/kubernetes/pkg/probe/tcp"
)

var (
	grpcProber = grpcprobe.New()
	httpProber = httpprobe.New(false)
	tcpProber  = tcpprobe.New()
)

// firstProbe is when the first probe comes, after the initial delay. A kubelet's comes at some part of the period; at
// once would be before any program listens, and a gRPC prober tries again only after a second.
const firstProbe = 200 * time.Millisecond

// unhealthy says which probe has had enough, and how long the process has to stop.
type unhealthy struct {
	kind  string
	grace time.Duration
}

// probe runs a container's probes until `ctx` ends: the startup probe alone first, then the other two.
func (c *container) probe(ctx context.Context, p *process, sick chan<- unhealthy) {
	give := func(kind string, spec *v1.Probe) {
		seconds := int64(30)
		if own := c.pod.current().Spec.TerminationGracePeriodSeconds; own != nil {
			seconds = *own
		}
		if spec.TerminationGracePeriodSeconds != nil {
			seconds = *spec.TerminationGracePeriodSeconds
		}
		select {
		case sick <- unhealthy{kind, time.Duration(seconds) * time.Second}:
		default:
		}
	}
	set := func(what func()) {
		if ctx.Err() == nil {
			c.change(what)
		}
	}
	if spec := c.spec.StartupProbe; spec != nil {
		started := false
		c.probeLoop(ctx, p, "Startup", spec, func(ok bool) bool {
			if started = ok; !ok {
				give("startup", spec)
			}
			return false
		})
		if !started {
			return
		}
		set(func() { c.started, c.ready = true, c.spec.ReadinessProbe == nil })
	}
	if spec := c.spec.LivenessProbe; spec != nil {
		go c.probeLoop(ctx, p, "Liveness", spec, func(ok bool) bool {
			if !ok {
				give("liveness", spec)
			}
			return ok
		})
	}
	if spec := c.spec.ReadinessProbe; spec != nil {
		c.probeLoop(ctx, p, "Readiness", spec, func(ok bool) bool {
			set(func() { c.ready = ok })
			return true
		})
	}
}

// probeLoop calls `verdict` each time that a threshold is reached, until it returns false.
func (c *container) probeLoop(ctx context.Context, p *process, kind string, spec *v1.Probe, verdict func(bool) bool) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(time.Duration(spec.InitialDelaySeconds)*time.Second + firstProbe):
	}
	ticker := time.NewTicker(time.Duration(max(spec.PeriodSeconds, 1)) * time.Second)
	defer ticker.Stop()
	successes, failures := int32(0), int32(0)
	for {
		ok, output := c.probeOnce(ctx, p, spec)
		if ctx.Err() != nil {
			return
		}
		if ok {
			successes, failures = successes+1, 0
		} else {
			successes, failures = 0, failures+1
			c.event(v1.EventTypeWarning, "Unhealthy", "%s probe failed: %s", kind, output)
		}
		if (ok && successes >= spec.SuccessThreshold || !ok && failures >= spec.FailureThreshold) && !verdict(ok) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (c *container) probeOnce(ctx context.Context, p *process, spec *v1.Probe) (bool, string) {
	timeout := time.Duration(max(spec.TimeoutSeconds, 1)) * time.Second
	address := c.pod.sandbox.address.String()
	var result probe.Result
	var output string
	var err error
	switch {
	case spec.GRPC != nil:
		service := ""
		if spec.GRPC.Service != nil {
			service = *spec.GRPC.Service
		}
		result, output, err = grpcProber.Probe(address, service, int(spec.GRPC.Port), timeout)
	case spec.HTTPGet != nil:
		request, bad := httpprobe.NewRequestForHTTPGetAction(spec.HTTPGet, &c.spec, address, "probe")
		if bad != nil {
			return false, bad.Error()
		}
		result, output, err = httpProber.Probe(request, timeout)
	case spec.TCPSocket != nil:
		port, bad := probe.ResolveContainerPort(spec.TCPSocket.Port, &c.spec)
		if bad != nil {
			return false, bad.Error()
		}
		result, output, err = tcpProber.Probe(address, port, timeout)
	case spec.Exec != nil:
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		raw, bad := c.inside(ctx, p, spec.Exec.Command).CombinedOutput()
		if bad == nil {
			return true, ""
		}
		return false, fmt.Sprintf("%s%v", raw, bad)
	default:
		return false, "the probe has no handler"
	}
	if err != nil {
		return false, err.Error()
	}
	return result == probe.Success || result == probe.Warning, output
}

// inside is a command in the container's namespaces and root.
func (c *container) inside(ctx context.Context, p *process, command []string) *exec.Cmd {
	args := append([]string{"exec", strconv.Itoa(p.command.Process.Pid), "--"}, command...)
	return exec.CommandContext(ctx, c.pod.agent.config.PodProgram, args...)
}
