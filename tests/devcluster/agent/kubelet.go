// The kubelet's HTTPS side, that the API server calls for logs, exec and port-forward; only who shows a certificate
// of its authority is answered. The protocols are offered by us: the client's header names some that are not spoken
// here.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	remotecommandconsts "k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/client-go/tools/remotecommand"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/logs"
	"k8s.io/klog/v2"
	"k8s.io/kubelet/pkg/cri/streaming/portforward"
	streaming "k8s.io/kubelet/pkg/cri/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

const (
	streamIdle     = 4 * time.Hour
	streamCreation = 30 * time.Second
)

func serveKubelet(a *agent) error {
	authority, err := os.ReadFile(a.config.ClientCA)
	if err != nil {
		return err
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(authority)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", a.serveLogs)
	for _, path := range []string{"/portForward/{namespace}/{pod}", "/portForward/{namespace}/{pod}/{uid}"} {
		mux.HandleFunc(path, a.servePortForward)
	}
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", a.serveExec)
	mux.HandleFunc("/exec/{namespace}/{pod}/{uid}/{container}", a.serveExec)
	server := &http.Server{
		Addr: fmt.Sprintf(":%d", a.config.KubeletPort), Handler: mux,
		// HTTP/1.1: streams take the connection over.
		TLSConfig: &tls.Config{
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, NextProtos: []string{"http/1.1"},
		},
	}
	go func() {
		if err := server.ListenAndServeTLS(a.config.ServingCert, a.config.ServingKey); err != nil {
			klog.Fatal(err)
		}
	}()
	return nil
}

// target is the pod that a request is about; nil if it is not here, and then the answer is given.
func (a *agent) target(w http.ResponseWriter, r *http.Request) *pod {
	found := a.find(r.PathValue("namespace"), r.PathValue("pod"))
	if uid := r.PathValue("uid"); found == nil || uid != "" && types.UID(uid) != found.uid {
		http.Error(w, fmt.Sprintf("pod %q does not exist", r.PathValue("pod")), http.StatusNotFound)
		return nil
	}
	return found
}

func (p *pod) container(name string) *container {
	for _, c := range append(append([]*container{}, p.inits...), p.mains...) {
		if c.spec.Name == name {
			return c
		}
	}
	return nil
}

// running is the process that runs, or nil; and the number of the newest run.
func (c *container) running() (*process, int32) {
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	if c.state.Running == nil {
		return nil, c.restarts
	}
	return c.process, c.restarts
}

func (a *agent) serveLogs(w http.ResponseWriter, r *http.Request) {
	p := a.target(w, r)
	if p == nil {
		return
	}
	name := r.PathValue("container")
	c := p.container(name)
	if c == nil {
		http.Error(w, fmt.Sprintf("container %q not found in pod %q", name, r.PathValue("pod")), http.StatusNotFound)
		return
	}
	options, err := logOptions(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, run := c.running()
	if options.Previous {
		run--
	}
	path := c.logFile(run)
	if _, err := os.Stat(path); err != nil {
		which := ""
		if options.Previous {
			which = "previous terminated "
		}
		message := fmt.Sprintf("%scontainer %q in pod %q not found", which, name, r.PathValue("pod"))
		if !options.Previous {
			message = fmt.Sprintf("container %q in pod %q is waiting to start: %s", name, r.PathValue("pod"), c.why())
		}
		http.Error(w, message, http.StatusBadRequest)
		return
	}
	out := flushing{w, http.NewResponseController(w)}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusOK)
	out.controller.Flush()
	logger := klog.Background()
	err = logs.ReadLogs(r.Context(), &logger, path, strconv.Itoa(int(run)), logs.NewLogOptions(options, time.Now()),
		liveness{container: c}, out, out)
	if err != nil && r.Context().Err() == nil {
		klog.ErrorS(err, "reading a log", "path", path)
	}
}

func (c *container) why() string {
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	if c.state.Waiting != nil {
		return c.state.Waiting.Reason
	}
	return "no log yet"
}

// logOptions parses by hand: these are query parameters of v1.PodLogOptions, whose codec wants the whole scheme.
func logOptions(query url.Values) (*v1.PodLogOptions, error) {
	options := &v1.PodLogOptions{}
	var problems []error
	boolean := func(name string) bool {
		text := query.Get(name)
		if text == "" {
			return false
		}
		value, err := strconv.ParseBool(text)
		problems = append(problems, err)
		return value
	}
	integer := func(name string) *int64 {
		text := query.Get(name)
		if text == "" {
			return nil
		}
		value, err := strconv.ParseInt(text, 10, 64)
		problems = append(problems, err)
		return &value
	}
	options.Follow, options.Previous, options.Timestamps = boolean("follow"), boolean("previous"), boolean("timestamps")
	options.TailLines, options.LimitBytes, options.SinceSeconds =
		integer("tailLines"), integer("limitBytes"), integer("sinceSeconds")
	if text := query.Get("sinceTime"); text != "" {
		since, err := time.Parse(time.RFC3339, text)
		problems = append(problems, err)
		options.SinceTime = &metav1.Time{Time: since}
	}
	return options, errors.Join(problems...)
}

// flushing sends each line as it is written.
type flushing struct {
	io.Writer
	controller *http.ResponseController
}

func (f flushing) Write(data []byte) (int, error) {
	n, err := f.Writer.Write(data)
	if err == nil {
		err = f.controller.Flush()
	}
	return n, err
}

// liveness answers the one question of the log reader: does the container, named by its run, still run?
type liveness struct {
	internalapi.RuntimeService
	container *container
}

func (l liveness) ContainerStatus(_ context.Context, id string, _ bool) (*runtimeapi.ContainerStatusResponse, error) {
	state := runtimeapi.ContainerState_CONTAINER_EXITED
	if p, run := l.container.running(); p != nil && strconv.Itoa(int(run)) == id {
		select {
		case <-p.done:
		default:
			state = runtimeapi.ContainerState_CONTAINER_RUNNING
		}
	}
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{Id: id, State: state}}, nil
}

func (a *agent) servePortForward(w http.ResponseWriter, r *http.Request) {
	p := a.target(w, r)
	if p == nil {
		return
	}
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(w, r, forwarder{p}, r.PathValue("pod"), p.uid, options, streamIdle, streamCreation,
		portforward.SupportedProtocols)
}

type forwarder struct{ pod *pod }

// PortForward copies both ways. As in container runtimes, the second direction gets a second after the first has ended.
func (f forwarder) PortForward(_ context.Context, _ string, _ types.UID, port int32, stream io.ReadWriteCloser) error {
	f.pod.mu.Lock()
	box := f.pod.sandbox
	f.pod.mu.Unlock()
	if box == nil {
		return errors.New("the pod has no network yet")
	}
	conn, err := box.dial(port)
	if err != nil {
		return fmt.Errorf("failed to connect to localhost:%d inside the pod: %w", port, err)
	}
	defer conn.Close()
	ended := make(chan error, 2)
	go func() {
		_, err := io.Copy(stream, conn)
		ended <- err
	}()
	go func() {
		_, err := io.Copy(conn, stream)
		conn.CloseWrite()
		ended <- err
	}()
	err = <-ended
	select {
	case <-ended:
	case <-time.After(time.Second):
	}
	return err
}

func (a *agent) serveExec(w http.ResponseWriter, r *http.Request) {
	p := a.target(w, r)
	if p == nil {
		return
	}
	options, err := streaming.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	streaming.ServeExec(w, r, executor{p}, r.PathValue("pod"), p.uid, r.PathValue("container"), r.URL.Query()["command"],
		options, streamIdle, streamCreation, remotecommandconsts.SupportedStreamingProtocols)
}

type executor struct{ pod *pod }

func (e executor) ExecInContainer(ctx context.Context, _ string, _ types.UID, name string, command []string,
	in io.Reader, out, errOut io.WriteCloser, tty bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	if tty {
		return errors.New("this node agent has no terminals: leave out -t")
	}
	c := e.pod.container(name)
	if c == nil {
		return fmt.Errorf("container %q not found", name)
	}
	process, _ := c.running()
	if process == nil {
		return fmt.Errorf("container %q is not running", name)
	}
	inside := c.inside(ctx, process, command)
	if in != nil {
		// Not inside.Stdin: Wait would wait for a client that keeps its side open.
		input, err := inside.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			io.Copy(input, in)
			input.Close()
		}()
	}
	if out != nil {
		inside.Stdout = out
	}
	if errOut != nil {
		inside.Stderr = errOut
	}
	err := inside.Run()
	if err == nil {
		return nil
	}
	if state := inside.ProcessState; state != nil {
		return utilexec.CodeExitError{Err: err, Code: state.ExitCode()}
	}
	return err
}
