// The first process of a container whose pod shares its process namespace, as the pause container is on a real node.
// It passes signals on, reaps what is left behind, and ends as the program does. The subtle thing is why it exists: a
// program that is not PID 1 ends on a SIGTERM for which it has no handler yet, and one that is PID 1 does not.
package main

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// catchSignals comes before anything else: PID 1 loses what it has no handler for.
func catchSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	return signals
}

// supervise returns only if the program cannot be started. `started` is closed once it runs.
func supervise(program string, args, env []string, signals <-chan os.Signal, started *os.File) error {
	process, err := os.StartProcess(program, args, &os.ProcAttr{
		Env:   env,
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return fmt.Errorf("exec %s: %w", program, err)
	}
	started.Close()
	go func() {
		for number := range signals {
			process.Signal(number)
		}
	}()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("waiting for %s: %w", program, err)
		case pid != process.Pid:
		case status.Signaled():
			os.Exit(128 + int(status.Signal()))
		default:
			os.Exit(status.ExitStatus())
		}
	}
}
