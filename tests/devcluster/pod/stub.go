// `pod stub`: stands where a server would, for tests of the operator that need hundreds of pods and no torch. It
// takes the server's flags, answers health (grpc.health.v1) and /status, and knows no session, token or tensor.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// ballast is memory that the test asked for; the variable keeps it from being collected.
var ballast []byte

// stub: STUB_START_DELAY_S waits before it answers, STUB_EXIT_CODE exits at once (after STUB_EXIT_AFTER_S, if that is
// set), STUB_ALLOC_MIB fills memory, STUB_SESSIONS and STUB_LAST_USED_UNIX are what /status says; the last two can be
// changed with POST /status, in which "then" is a further change, for after the next answer, and "hold" has whoever asks
// wait for the next change.
func stub(args []string) {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	fmt.Println("stub started")
	after, exits := number("STUB_EXIT_AFTER_S"), os.Getenv("STUB_EXIT_CODE") != "" || os.Getenv("STUB_EXIT_AFTER_S") != ""
	if exits && after == 0 {
		leave()
	}
	if exits {
		time.AfterFunc(seconds(after), leave)
	}
	if !sleep(ctx, seconds(number("STUB_START_DELAY_S"))) {
		return
	}
	ballast = make([]byte, int(number("STUB_ALLOC_MIB"))<<20)
	for at := 0; at < len(ballast); at += 4096 {
		ballast[at] = 1
	}
	go serveHealth(flag(args, "--health", "0.0.0.0:7778"))
	go serveStatus(flag(args, "--metrics-host", "0.0.0.0") + ":" + flag(args, "--metrics-port", "7779"))
	<-ctx.Done()
	fmt.Println("stub stopped by a signal")
}

func leave() {
	fmt.Println("stub exits, as its environment says")
	os.Exit(int(number("STUB_EXIT_CODE")))
}

func serveHealth(address string) {
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	must(server.Serve(listen(address)))
}

// use is what a server says about its clients.
type use struct {
	mu       sync.Mutex
	sessions int64
	lastUsed float64
	then     *change
	held     chan struct{} // closed: whoever waits may have an answer
}

type change struct {
	Sessions *int64   `json:"sessions"`
	LastUsed *float64 `json:"last_used_unix"`
	Then     *change  `json:"then"`
	Hold     bool     `json:"hold"`
}

func unixNow() float64 { return float64(time.Now().UnixMilli()) / 1000 }

// change is called with the lock held.
func (u *use) change(to *change) {
	if to.Sessions != nil {
		if *to.Sessions == 0 && u.sessions > 0 {
			u.lastUsed = unixNow()
		}
		u.sessions = *to.Sessions
	}
	if to.LastUsed != nil {
		u.lastUsed = *to.LastUsed
	}
	if u.held != nil {
		close(u.held)
		u.held = nil
	}
	if to.Hold {
		u.held = make(chan struct{})
	}
	u.then = to.Then
}

// answer is what /status says of it now; the next one is after the change that was to follow.
func (u *use) answer() (sessions int64, lastUsed float64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if held := u.held; held != nil {
		u.mu.Unlock()
		<-held
		u.mu.Lock()
	}
	sessions, lastUsed = u.sessions, u.lastUsed
	if sessions > 0 {
		lastUsed = unixNow()
	}
	if u.then != nil {
		u.change(u.then)
	}
	return sessions, lastUsed
}

func serveStatus(address string) {
	started := unixNow()
	told := &use{sessions: int64(number("STUB_SESSIONS")), lastUsed: started}
	if os.Getenv("STUB_LAST_USED_UNIX") != "" {
		told.lastUsed = number("STUB_LAST_USED_UNIX")
	}
	http.HandleFunc("POST /status", func(w http.ResponseWriter, r *http.Request) {
		var to change
		if err := json.NewDecoder(r.Body).Decode(&to); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		told.mu.Lock()
		defer told.mu.Unlock()
		told.change(&to)
	})
	http.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		sessions, lastUsed := told.answer()
		json.NewEncoder(w).Encode(map[string]any{
			"version": "0.1.0", "torch": "stub", "devices": []string{"cpu"}, "sessions": sessions,
			"last_used_unix": lastUsed, "started_unix": started,
		})
	})
	must(http.Serve(listen(address), nil))
}

func listen(address string) net.Listener {
	listener, err := net.Listen("tcp", address)
	must(err)
	return listener
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// flag is the value of a flag of the server's command line, as "--name value" or "--name=value".
func flag(args []string, name, otherwise string) string {
	for i, arg := range args {
		if value, ok := strings.CutPrefix(arg, name+"="); ok {
			return value
		}
		if arg == name && i+1 < len(args) {
			return args[i+1]
		}
	}
	return otherwise
}

func number(variable string) float64 {
	value, _ := strconv.ParseFloat(os.Getenv(variable), 64)
	return value
}

func seconds(count float64) time.Duration { return time.Duration(count * float64(time.Second)) }

// sleep waits; false means that the pod is stopped before.
func sleep(ctx context.Context, delay time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(delay):
		return true
	}
}
