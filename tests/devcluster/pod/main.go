// What runs inside a pod: `pod run` becomes a container's program, `pod exec PID -- ARGS` joins a running container,
// `pod stub` is a server for tests that speaks only health and status. It talks to no API server; the agent does.
package main

import (
	"fmt"
	"os"
	"runtime"
)

func init() {
	// Namespaces and roots belong to a thread: what is joined below has to be the thread that executes the program.
	runtime.LockOSThread()
}

func main() {
	mode := ""
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	switch mode {
	case "run":
		run()
	case "exec":
		join(os.Args[2:])
	case "stub":
		stub(os.Args[2:])
	default:
		fmt.Fprintln(os.Stderr, "usage: pod run | exec PID -- COMMAND... | stub [the server's flags]")
		os.Exit(2)
	}
}
