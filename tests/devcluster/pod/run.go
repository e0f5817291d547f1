// `pod run`: from a fresh mount and PID namespace to the container's program, which takes this process's place as
// PID 1, or is its child where the pod shares its process namespace (init.go). Mount points are made after the chroot, because a path such as /var/run/secrets leads through a symbolic
// link of that root; what is mounted there is opened before it.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"skytorch.dev/devcluster/launch"
)

func run() {
	signals := catchSignals()
	unix.CloseOnExec(launch.ErrorFD)
	report := os.NewFile(launch.ErrorFD, "error")
	if err := become(signals, report); err != nil {
		fmt.Fprint(report, err)
		os.Exit(128)
	}
}

// become returns only if it fails.
func become(signals <-chan os.Signal, report *os.File) error {
	file := os.NewFile(launch.PlanFD, "plan")
	var plan launch.Plan
	if err := json.NewDecoder(file).Decode(&plan); err != nil {
		return fmt.Errorf("reading the plan: %w", err)
	}
	file.Close()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making the mounts private: %w", err)
	}
	mounts, err := openMounts(append(base(plan), plan.Mounts...))
	if err != nil {
		return err
	}
	root, err := enterRoot(plan.Layer)
	if err != nil {
		return err
	}
	for _, mount := range mounts {
		if err := mount.attach(root); err != nil {
			return fmt.Errorf("mounting %s: %w", mount.Target, err)
		}
	}
	if err := os.MkdirAll("/proc", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if plan.ReadOnly {
		if err := root.protect(); err != nil {
			return err
		}
	}
	if err := unix.Sethostname([]byte(plan.Hostname)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	if err := os.Chdir(plan.WorkDir); err != nil {
		return err
	}
	program, err := lookUp(plan.Args[0], plan.Env)
	if err != nil {
		return err
	}
	if plan.Shared {
		return supervise(program, plan.Args, plan.Env, signals, report)
	}
	return fmt.Errorf("exec %s: %w", program, unix.Exec(program, plan.Args, plan.Env))
}

// base is what every container sees beside its root: devices, and no one else's /tmp.
func base(plan launch.Plan) []launch.Mount {
	return []launch.Mount{
		{Source: "/dev", Target: "/dev"},
		{Source: "/sys", Target: "/sys"},
		{Source: filepath.Join(plan.Layer, "tmp"), Target: "/tmp", ReadOnly: plan.ReadOnly},
	}
}

// openMount is a mount that is detached from the tree it came from, and so survives the chroot.
type openMount struct {
	launch.Mount
	tree   int
	folder bool
}

func openMounts(mounts []launch.Mount) ([]openMount, error) {
	opened := make([]openMount, 0, len(mounts))
	for _, mount := range mounts {
		info, err := os.Stat(mount.Source)
		if err != nil {
			return nil, err
		}
		tree, err := unix.OpenTree(unix.AT_FDCWD, mount.Source, clone)
		if err != nil {
			return nil, fmt.Errorf("opening %s: %w", mount.Source, err)
		}
		opened = append(opened, openMount{Mount: mount, tree: tree, folder: info.IsDir()})
	}
	return opened, nil
}

func (m openMount) attach(root *root) error {
	if err := root.place(m.Target, m.folder); err != nil {
		return err
	}
	target, err := filepath.EvalSymlinks(m.Target)
	if err != nil {
		return err
	}
	if err := unix.MoveMount(m.tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return err
	}
	if m.ReadOnly {
		return protect(target)
	}
	return nil
}

// lookUp finds a program in the container's PATH.
func lookUp(name string, env []string) (string, error) {
	for _, entry := range env {
		if path, ok := strings.CutPrefix(entry, "PATH="); ok {
			os.Setenv("PATH", path)
		}
	}
	return exec.LookPath(name)
}
