// Images: a name stands for a command of this machine, by a table that the runner writes. The table is read at each
// pull, so an image may appear while a pod waits for it.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"

	"k8s.io/kubernetes/pkg/util/parsers"
	"skytorch.dev/devcluster/launch"
)

type image struct {
	Name       string            `json:"-"`
	Entrypoint []string          `json:"entrypoint"`
	Command    []string          `json:"command"`
	Env        map[string]string `json:"env"`
	WorkDir    string            `json:"workdir"`
	Files      map[string]string `json:"files"` // path in the container -> path on this machine
	Hint       string            `json:"hint"`  // what makes a file that is missing
}

type invalidImageName struct{ error }

// findImage looks for the exact name, then for its repository, which stands for every tag.
func findImage(table, name string) (*image, error) {
	repository, _, _, err := parsers.ParseImageName(name)
	if err != nil {
		return nil, invalidImageName{fmt.Errorf("Failed to apply default image tag %q: %w", name, err)}
	}
	raw, err := os.ReadFile(table)
	if err != nil {
		return nil, err
	}
	var images map[string]*image
	if err := json.Unmarshal(raw, &images); err != nil {
		return nil, fmt.Errorf("%s: %w", table, err)
	}
	found := images[name]
	if found == nil {
		found = images[strings.TrimPrefix(repository, "docker.io/")]
	}
	if found == nil {
		return nil, fmt.Errorf("failed to pull and unpack image %q: failed to resolve reference %q: %s: not found",
			name, name, name)
	}
	for _, source := range found.Files {
		if _, err := os.Stat(source); err != nil {
			return nil, fmt.Errorf("failed to pull image %q: %w: %s", name, err, found.Hint)
		}
	}
	found.Name = name
	return found, nil
}

func (i *image) mounts() []launch.Mount {
	var mounts []launch.Mount
	for target, source := range i.Files {
		mounts = append(mounts, launch.Mount{Source: source, Target: target, ReadOnly: true})
	}
	sort.Slice(mounts, func(a, b int) bool { return mounts[a].Target < mounts[b].Target })
	return mounts
}
