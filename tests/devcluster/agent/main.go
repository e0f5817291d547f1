// The node agent: what a kubelet and kube-proxy do, for two nodes in one process, with pods that are processes of
// this machine. It is no container runtime: an image name stands for a command (image.go). Containers end with it.
//
// It keeps a kubelet's words (reasons, events, messages) and order, and leaves out what SkyTorch does not need here:
// users and groups (runAsUser and fsGroup are ignored, all is root), seccomp and capabilities, CPU limits, lifecycle
// hooks, init containers that stay, terminals, processes that see another container's, host networks; and of the network UDP, DNS and NetworkPolicies.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// config is written by the Python runner.
type config struct {
	Kubeconfig     string  `json:"kubeconfig"`
	Folder         string  `json:"folder"` // on a tmpfs: overlays cannot lie on what they cover
	PodProgram     string  `json:"pod_program"`
	Images         string  `json:"images"`
	Nodes          []node  `json:"nodes"`
	KubeletPort    int     `json:"kubelet_port"`
	ServingCert    string  `json:"serving_cert"`
	ServingKey     string  `json:"serving_key"`
	ClientCA       string  `json:"client_ca"`
	Gateway        string  `json:"gateway"` // this machine's address on the bridge
	PrefixLength   int     `json:"prefix_length"`
	FirstPod       string  `json:"first_pod"` // the first pod's address
	ServiceNetwork string  `json:"service_network"`
	APIService     string  `json:"api_service"` // cluster address of the Service kubernetes
	BackoffS       float64 `json:"backoff_s"`   // after the second crash; doubles
	BackoffMaxS    float64 `json:"backoff_max_s"`
}

type node struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	GPUs    int64  `json:"gpus"`
}

func main() {
	klog.InitFlags(nil)
	flag.Parse()
	if flag.NArg() != 2 || flag.Arg(0) != "network" && flag.Arg(0) != "nodes" {
		fmt.Fprintln(os.Stderr, "usage: agent network|nodes CONFIG.json")
		os.Exit(2)
	}
	if err := start(flag.Arg(0), flag.Arg(1)); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

func start(mode, path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var settings config
	if err := json.Unmarshal(raw, &settings); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if mode == "network" {
		return makeNetwork(&settings)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	return serve(ctx, &settings)
}
