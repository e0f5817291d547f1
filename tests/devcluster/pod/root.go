// A container's root: an overlay over each folder of this machine's root, so that what a container writes is its own
// and vanishes with it. It is not one overlay over /: a user namespace may not lay one over a folder with mounts
// inside, and it would not show other file systems.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// own are the folders that every container gets from elsewhere.
var own = []string{"dev", "proc", "sys", "tmp"}

// enterRoot makes the root below `layer` and moves into it. It returns the mounts that it is made of.
func enterRoot(layer string) ([]string, error) {
	root := filepath.Join(layer, "root")
	if err := unix.Mount(root, root, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("making the root: %w", err)
	}
	entries, err := os.ReadDir("/")
	if err != nil {
		return nil, err
	}
	mounts := []string{"/"}
	for _, entry := range entries {
		path := "/" + entry.Name()
		if entry.Type()&os.ModeSymlink != 0 {
			if target, err := os.Readlink(path); err == nil {
				if err := os.Symlink(target, root+path); err != nil {
					return nil, err
				}
			}
			continue
		}
		if !entry.IsDir() || slices.Contains(own, entry.Name()) {
			continue
		}
		if err := layOver(layer, entry.Name()); err != nil {
			return nil, fmt.Errorf("making %s: %w", path, err)
		}
		mounts = append(mounts, path)
	}
	if err := unix.Chroot(root); err != nil {
		return nil, err
	}
	return mounts, os.Chdir("/")
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

// protect makes one mount read-only and leaves its other properties, which a user may not change.
func protect(path string) error {
	return unix.MountSetattr(unix.AT_FDCWD, path, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}
