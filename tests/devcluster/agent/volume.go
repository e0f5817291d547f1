// Volumes: folders on this machine that containers see. What comes from Secrets, ConfigMaps, the pod's own fields or
// a service account's token is rewritten when its source changes, by swapping one symbolic link as a kubelet does,
// so that a reader sees the old files or the new ones and never some of each. fsGroup is ignored: everything is
// root's.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/fieldpath"
)

type volume struct {
	folder   string
	readOnly bool
	files    func() (map[string]file, error) // nil: what is in it is the container's own business
	written  map[string]file
}

type file struct {
	data []byte
	mode os.FileMode
}

// sub is the path of a subPath mount: a folder that is made, unless it is a file of a Secret or the like.
func (v *volume) sub(path string) (string, error) {
	if path == "" {
		return v.folder, nil
	}
	if !filepath.IsLocal(path) {
		return "", fmt.Errorf("subPath %q leads out of its volume", path)
	}
	full := filepath.Join(v.folder, path)
	if v.files != nil {
		return filepath.EvalSymlinks(full)
	}
	if _, err := os.Stat(full); err == nil {
		return full, nil
	}
	return full, os.MkdirAll(full, 0o777)
}

// makeVolumes returns them all, or the name of the first that cannot be made yet.
func (p *pod) makeVolumes() (map[string]*volume, string, error) {
	made := map[string]*volume{}
	for _, spec := range p.current().Spec.Volumes {
		v, err := p.makeVolume(spec)
		if err == nil && v.files != nil {
			err = v.update()
		}
		if err != nil {
			return nil, spec.Name, err
		}
		made[spec.Name] = v
	}
	return made, "", nil
}

func (p *pod) makeVolume(spec v1.Volume) (*volume, error) {
	v := &volume{folder: filepath.Join(p.folder, "volumes", spec.Name)}
	if err := os.MkdirAll(v.folder, 0o777); err != nil {
		return nil, err
	}
	if err := os.Chmod(v.folder, 0o777); err != nil {
		return nil, err
	}
	switch {
	case spec.EmptyDir != nil:
	case spec.Secret != nil:
		v.readOnly = true
		v.files = func() (map[string]file, error) {
			source := spec.Secret
			return p.secretFiles(source.SecretName, source.Items, source.DefaultMode, source.Optional)
		}
	case spec.ConfigMap != nil:
		v.readOnly = true
		v.files = func() (map[string]file, error) {
			source := spec.ConfigMap
			return p.configMapFiles(source.Name, source.Items, source.DefaultMode, source.Optional)
		}
	case spec.DownwardAPI != nil:
		v.readOnly = true
		v.files = func() (map[string]file, error) {
			return p.fieldFiles(spec.DownwardAPI.Items, spec.DownwardAPI.DefaultMode)
		}
	case spec.Projected != nil:
		v.readOnly = true
		v.files = p.projection(spec.Projected)
	case spec.HostPath != nil:
		v.folder = spec.HostPath.Path
		if kind := spec.HostPath.Type; kind != nil && *kind == v1.HostPathDirectoryOrCreate {
			return v, os.MkdirAll(v.folder, 0o755)
		}
	case spec.PersistentVolumeClaim != nil:
		path, err := p.claimPath(spec.PersistentVolumeClaim.ClaimName)
		v.folder, v.readOnly = path, spec.PersistentVolumeClaim.ReadOnly
		return v, err
	default:
		return nil, fmt.Errorf("this node agent has no volumes of that kind")
	}
	return v, nil
}

func (p *pod) claimPath(name string) (string, error) {
	claims := p.agent.client.CoreV1().PersistentVolumeClaims(p.current().Namespace)
	claim, err := claims.Get(p.ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if claim.Spec.VolumeName == "" {
		return "", fmt.Errorf("claim %q is not bound", name)
	}
	bound, err := p.agent.client.CoreV1().PersistentVolumes().Get(p.ctx, claim.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if bound.Spec.HostPath == nil {
		return "", fmt.Errorf("volume %q is not a host path", bound.Name)
	}
	return bound.Spec.HostPath.Path, os.MkdirAll(bound.Spec.HostPath.Path, 0o777)
}

func (p *pod) secretFiles(name string, items []v1.KeyToPath, mode *int32, may *bool) (map[string]file, error) {
	secret, err := p.agent.secrets.Secrets(p.current().Namespace).Get(name)
	if missing(err, may) {
		return nil, err
	}
	data := map[string][]byte{}
	if secret != nil {
		data = secret.Data
	}
	return choose(data, items, mode, may)
}

func (p *pod) configMapFiles(name string, items []v1.KeyToPath, mode *int32, may *bool) (map[string]file, error) {
	configMap, err := p.agent.configMaps.ConfigMaps(p.current().Namespace).Get(name)
	if missing(err, may) {
		return nil, err
	}
	data := map[string][]byte{}
	if configMap != nil {
		for key, value := range configMap.Data {
			data[key] = []byte(value)
		}
		for key, value := range configMap.BinaryData {
			data[key] = value
		}
	}
	return choose(data, items, mode, may)
}

func choose(data map[string][]byte, items []v1.KeyToPath, mode *int32, may *bool) (map[string]file, error) {
	chosen := map[string]file{}
	if len(items) == 0 {
		for key, value := range data {
			chosen[key] = file{value, modeOf(mode, nil)}
		}
	}
	for _, item := range items {
		value, given := data[item.Key]
		if !given && !optional(may) {
			return nil, fmt.Errorf("references non-existent key: %s", item.Key)
		}
		if given {
			chosen[item.Path] = file{value, modeOf(mode, item.Mode)}
		}
	}
	return chosen, nil
}

func (p *pod) fieldFiles(items []v1.DownwardAPIVolumeFile, mode *int32) (map[string]file, error) {
	chosen := map[string]file{}
	for _, item := range items {
		if item.FieldRef == nil {
			return nil, fmt.Errorf("this node agent has no resourceFieldRef")
		}
		value, err := fieldpath.ExtractFieldPathAsString(p.current(), item.FieldRef.FieldPath)
		if err != nil {
			return nil, err
		}
		chosen[item.Path] = file{[]byte(value), modeOf(mode, item.Mode)}
	}
	return chosen, nil
}

func modeOf(usual, own *int32) os.FileMode {
	for _, mode := range []*int32{own, usual} {
		if mode != nil {
			return os.FileMode(*mode)
		}
	}
	return 0o644
}

// projection joins its sources. A token is asked for anew when four fifths of its life are over.
func (p *pod) projection(spec *v1.ProjectedVolumeSource) func() (map[string]file, error) {
	tokens := map[string]*authenticationv1.TokenRequest{}
	asked := map[string]time.Time{}
	return func() (map[string]file, error) {
		joined := map[string]file{}
		for _, source := range spec.Sources {
			var files map[string]file
			var err error
			switch {
			case source.Secret != nil:
				files, err = p.secretFiles(source.Secret.Name, source.Secret.Items, spec.DefaultMode, source.Secret.Optional)
			case source.ConfigMap != nil:
				files, err = p.configMapFiles(source.ConfigMap.Name, source.ConfigMap.Items, spec.DefaultMode,
					source.ConfigMap.Optional)
			case source.DownwardAPI != nil:
				files, err = p.fieldFiles(source.DownwardAPI.Items, spec.DefaultMode)
			case source.ServiceAccountToken != nil:
				wanted := source.ServiceAccountToken
				token := tokens[wanted.Path]
				if token == nil || time.Since(asked[wanted.Path]) > time.Until(token.Status.ExpirationTimestamp.Time)*4 {
					if token, err = p.token(wanted); err == nil {
						tokens[wanted.Path], asked[wanted.Path] = token, time.Now()
					}
				}
				if err == nil {
					files = map[string]file{wanted.Path: {[]byte(token.Status.Token), 0o600}}
				}
			default:
				err = fmt.Errorf("this node agent has no projection of that kind")
			}
			if err != nil {
				return nil, err
			}
			for path, content := range files {
				joined[path] = content
			}
		}
		return joined, nil
	}
}

func (p *pod) token(wanted *v1.ServiceAccountTokenProjection) (*authenticationv1.TokenRequest, error) {
	object := p.current()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: wanted.ExpirationSeconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: object.Name, UID: types.UID(object.UID),
		},
	}}
	if wanted.Audience != "" {
		request.Spec.Audiences = []string{wanted.Audience}
	}
	return p.agent.client.CoreV1().ServiceAccounts(object.Namespace).CreateToken(p.ctx, object.Spec.ServiceAccountName,
		request, metav1.CreateOptions{})
}

// keepVolumes follows the sources of volumes as long as the pod lives.
func (p *pod) keepVolumes() {
	renew := time.NewTicker(30 * time.Second)
	defer renew.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.refresh:
		case <-renew.C:
		}
		for name, v := range p.volumes {
			if v.files == nil {
				continue
			}
			if err := v.update(); err != nil {
				klog.ErrorS(err, "refreshing a volume", "pod", p.current().Name, "volume", name)
			}
		}
	}
}

// update writes the files if they changed: a new folder, then the link `..data` to it, then the old folder goes.
func (v *volume) update() error {
	files, err := v.files()
	if err != nil {
		return err
	}
	if v.written != nil && reflect.DeepEqual(files, v.written) {
		return nil
	}
	fresh, err := os.MkdirTemp(v.folder, "..")
	if err != nil {
		return err
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	for path, content := range files {
		if !fileName(path) {
			return fmt.Errorf("file name %q is not allowed", path)
		}
		full := filepath.Join(fresh, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(full, content.data, content.mode); err != nil {
			return err
		}
		if err := os.Chmod(full, content.mode); err != nil {
			return err
		}
	}
	data := filepath.Join(v.folder, "..data")
	old, _ := os.Readlink(data)
	if err := os.Symlink(filepath.Base(fresh), data+"_tmp"); err != nil {
		return err
	}
	if err := os.Rename(data+"_tmp", data); err != nil {
		return err
	}
	if err := v.link(files); err != nil {
		return err
	}
	if old != "" {
		os.RemoveAll(filepath.Join(v.folder, old))
	}
	v.written = files
	return nil
}

// link gives each first part of a path a link through `..data`, and takes away those whose files are gone.
func (v *volume) link(files map[string]file) error {
	wanted := map[string]bool{}
	for path := range files {
		first := path
		for filepath.Dir(first) != "." {
			first = filepath.Dir(first)
		}
		wanted[first] = true
		err := os.Symlink(filepath.Join("..data", first), filepath.Join(v.folder, first))
		if err != nil && !os.IsExist(err) {
			return err
		}
	}
	entries, err := os.ReadDir(v.folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if fileName(entry.Name()) && !wanted[entry.Name()] {
			os.Remove(filepath.Join(v.folder, entry.Name()))
		}
	}
	return nil
}
