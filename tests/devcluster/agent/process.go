// A container's process: started in namespaces of its own, its output written to a log, its end noted, and killed
// when its memory passes the limit. There is no cgroup: memory is polled, so a quick allocation may go past the
// limit first.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"skytorch.dev/devcluster/launch"
)

const memoryPoll = 100 * time.Millisecond

type process struct {
	command     *exec.Cmd
	done        chan struct{}
	outOfMemory atomic.Bool
}

// launchProcess returns when the container's program runs, or why it does not.
func launchProcess(program string, plan *launch.Plan, log string, network netns.NsHandle) (*process, error) {
	described, err := planFile(plan)
	if err != nil {
		return nil, err
	}
	defer described.Close()
	failure, report, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer failure.Close()
	output, err := newLog(log)
	if err != nil {
		report.Close()
		return nil, err
	}
	command := exec.Command(program, "run")
	command.Env = []string{}
	command.Stdout, command.Stderr = output.stream("stdout"), output.stream("stderr")
	command.ExtraFiles = []*os.File{launch.PlanFD - 3: described, launch.ErrorFD - 3: report}
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
		Setsid:     true,
	}
	p := &process{command: command, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The child gets this thread's network, and dies with this thread: it is this container's for good.
		runtime.LockOSThread()
		err := netns.Set(network)
		if err == nil {
			err = command.Start()
		}
		started <- err
		if err != nil {
			output.close()
			return
		}
		command.Wait()
		output.close()
		close(p.done)
	}()
	err = <-started
	report.Close()
	if err != nil {
		return nil, err
	}
	if message, _ := io.ReadAll(failure); len(message) > 0 {
		<-p.done
		return nil, errors.New(string(message))
	}
	return p, nil
}

func planFile(plan *launch.Plan) (*os.File, error) {
	encoded, err := json.Marshal(plan)
	if err != nil {
		return nil, err
	}
	for _, folder := range []string{"upper", "work", "root", "tmp"} {
		if err := os.MkdirAll(filepath.Join(plan.Layer, folder), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(filepath.Join(plan.Layer, "tmp"), 0o777|os.ModeSticky); err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("plan", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "plan")
	if _, err := file.Write(encoded); err != nil {
		return nil, err
	}
	_, err = file.Seek(0, io.SeekStart)
	return file, err
}

// id names the process as this cluster's other processes see it, so that a test can kill it.
func (p *process) id() string { return fmt.Sprintf("devcluster://%d", p.command.Process.Pid) }

func (p *process) terminate() { p.command.Process.Signal(unix.SIGTERM) }
func (p *process) kill()      { p.command.Process.Signal(unix.SIGKILL) }

// result is the exit code and reason of a process that has ended.
func (p *process) result() (int32, string) {
	if p.outOfMemory.Load() {
		return 137, "OOMKilled"
	}
	status := p.command.ProcessState.Sys().(syscall.WaitStatus)
	code := int32(status.ExitStatus())
	if status.Signaled() {
		code = 128 + int32(status.Signal())
	}
	if code == 0 {
		return 0, "Completed"
	}
	return code, "Error"
}

func (p *process) limitMemory(limit int64) {
	ticker := time.NewTicker(memoryPoll)
	defer ticker.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-ticker.C:
			if p.memory() > limit {
				p.outOfMemory.Store(true)
				p.kill()
				return
			}
		}
	}
}

// memory is what the container's processes hold that is not backed by files, in bytes. Its own /proc lists just them.
func (p *process) memory() int64 {
	var total int64
	root := filepath.Join("/proc", strconv.Itoa(p.command.Process.Pid), "root", "proc")
	entries, err := os.ReadDir(root)
	if err != nil {
		return 0
	}
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		status, err := os.ReadFile(filepath.Join(root, entry.Name(), "status"))
		if err != nil {
			continue
		}
		for _, line := range bytes.Split(status, []byte("\n")) {
			fields := strings.Fields(string(line))
			if len(fields) == 3 && (fields[0] == "RssAnon:" || fields[0] == "RssShmem:") {
				kib, _ := strconv.ParseInt(fields[1], 10, 64)
				total += kib << 10
			}
		}
	}
	return total
}
