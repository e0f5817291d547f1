// A container's root: an overlay over each folder of this machine's root, so that what a container writes is its own
// and vanishes with it. It is not one overlay over /: a user namespace may not lay one over a folder with mounts
// inside, and it would not show other file systems. Nor may a user add to root's folders, overlay or not, where
// mount points are needed: such a folder is opened up, which is a new one with everything of the old one mounted in
// it.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// own are the folders that every container gets from elsewhere.
var own = []string{"dev", "proc", "sys", "tmp"}

const clone = unix.OPEN_TREE_CLONE | unix.AT_RECURSIVE | unix.OPEN_TREE_CLOEXEC

// root is what this process sees as /, and the mounts that it is made of.
type root struct{ mounts []string }

// enterRoot makes a root below `layer` and moves into it.
func enterRoot(layer string) (*root, error) {
	folder := filepath.Join(layer, "root")
	if err := unix.Mount(folder, folder, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("making the root: %w", err)
	}
	entries, err := os.ReadDir("/")
	if err != nil {
		return nil, err
	}
	made := &root{mounts: []string{"/"}}
	for _, entry := range entries {
		path := "/" + entry.Name()
		if entry.Type()&os.ModeSymlink != 0 {
			if err := copyLink(unix.AT_FDCWD, path, folder+path); err != nil {
				return nil, err
			}
			continue
		}
		if !entry.IsDir() || slices.Contains(own, entry.Name()) {
			continue
		}
		if err := layOver(layer, entry.Name()); err != nil {
			return nil, fmt.Errorf("making %s: %w", path, err)
		}
		made.mounts = append(made.mounts, path)
	}
	if err := unix.Chroot(folder); err != nil {
		return nil, err
	}
	return made, os.Chdir("/")
}

// layOver shows a folder of the machine's root. Where an overlay is not allowed, since another file system is mounted
// inside it that a user may not uncover, the folder itself is shown, and the machine's permissions protect it.
func layOver(layer, name string) error {
	upper, work := filepath.Join(layer, "upper", name), filepath.Join(layer, "work", name)
	target := filepath.Join(layer, "root", name)
	for _, folder := range []string{upper, work, target} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=/%s,upperdir=%s,workdir=%s", name, upper, work)
	if unix.Mount("overlay", target, "overlay", 0, options) == nil ||
		unix.Mount("overlay", target, "overlay", 0, options+",userxattr") == nil {
		return nil
	}
	return unix.Mount("/"+name, target, "", unix.MS_BIND|unix.MS_REC, "")
}

// place makes a mount point, a folder or an empty file.
func (r *root) place(path string, folder bool) error {
	err := place(path, folder)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	parent := filepath.Dir(path)
	for {
		if real, err := filepath.EvalSymlinks(parent); err == nil {
			parent = real
			break
		}
		parent = filepath.Dir(parent)
	}
	if err := r.openUp(parent); err != nil {
		return fmt.Errorf("opening %s up: %w", parent, err)
	}
	return place(path, folder)
}

func place(path string, folder bool) error {
	if folder {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return file.Close()
}

func (r *root) openUp(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	old, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer old.Close()
	if err := unix.Mount("devcluster", folder, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	r.mounts = append(r.mounts, folder)
	for _, entry := range entries {
		path := filepath.Join(folder, entry.Name())
		if entry.Type()&os.ModeSymlink != 0 {
			if err := copyLink(int(old.Fd()), entry.Name(), path); err != nil {
				return err
			}
			continue
		}
		tree, err := unix.OpenTree(int(old.Fd()), entry.Name(), clone)
		if err != nil {
			return err
		}
		if err := place(path, entry.IsDir()); err != nil {
			return err
		}
		if err := unix.MoveMount(tree, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return err
		}
		unix.Close(tree)
	}
	return nil
}

func copyLink(folder int, from, to string) error {
	target := make([]byte, unix.PathMax)
	length, err := unix.Readlinkat(folder, from, target)
	if err != nil {
		return err
	}
	return os.Symlink(string(target[:length]), to)
}

// protect makes the root read-only, but not what is mounted on it.
func (r *root) protect() error {
	for _, path := range r.mounts {
		if err := protect(path); err != nil {
			return fmt.Errorf("making %s read-only: %w", path, err)
		}
	}
	return nil
}

// protect makes one mount read-only and leaves its other properties, which a user may not change.
func protect(path string) error {
	return unix.MountSetattr(unix.AT_FDCWD, path, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}
