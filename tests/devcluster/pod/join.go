// `pod exec PID -- COMMAND...`: runs COMMAND inside the container whose first process is PID, for kubectl exec and
// for exec probes. The container's root is a chroot inside its mount namespace, so that root is opened before
// joining.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func join(args []string) {
	if len(args) < 3 || args[1] != "--" {
		fmt.Fprintln(os.Stderr, "usage: pod exec PID -- COMMAND...")
		os.Exit(2)
	}
	err := enter(args[0])
	if err == nil {
		err = child(args[2:])
	}
	var exited *exec.ExitError
	if errors.As(err, &exited) {
		code := exited.ExitCode()
		if code < 0 {
			code = 128 + int(exited.Sys().(syscall.WaitStatus).Signal())
		}
		os.Exit(code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(126)
	}
}

var environment []string

// enter moves this thread into the container's namespaces and root. Only a child is in its PID namespace.
func enter(pid string) error {
	number, err := strconv.Atoi(pid)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile("/proc/" + pid + "/environ")
	if err != nil {
		return err
	}
	environment = strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
	root, err := unix.Open("/proc/"+pid+"/root", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	handle, err := unix.PidfdOpen(number, 0)
	if err != nil {
		return err
	}
	// A thread that shares its root with others may not change its mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	kinds := unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS
	if err := unix.Setns(handle, kinds); err != nil {
		return fmt.Errorf("joining the container: %w", err)
	}
	if err := unix.Fchdir(root); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

func child(args []string) error {
	for _, entry := range environment {
		if path, ok := strings.CutPrefix(entry, "PATH="); ok {
			os.Setenv("PATH", path)
		}
	}
	command := exec.Command(args[0], args[1:]...)
	command.Env = environment
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	return command.Run()
}
