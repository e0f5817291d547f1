// What a container's process is told: program, environment and mounts, from the pod's spec, the image, and the
// Secrets and ConfigMaps that it names.
package main

import (
	"fmt"
	"path/filepath"
	"sort"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
	"skytorch.dev/devcluster/launch"
)

func (c *container) plan(found *image) (*launch.Plan, error) {
	variables, err := c.environment(found)
	if err != nil {
		return nil, err
	}
	object := c.pod.current()
	plan := &launch.Plan{
		Layer:    filepath.Join(c.pod.folder, "layers", fmt.Sprintf("%s-%d", c.spec.Name, c.restarts)),
		Hostname: object.Name, WorkDir: "/", Mounts: found.mounts(),
		Shared: object.Spec.ShareProcessNamespace != nil && *object.Spec.ShareProcessNamespace,
	}
	for _, directory := range []string{found.WorkDir, c.spec.WorkingDir} {
		if directory != "" {
			plan.WorkDir = directory
		}
	}
	if security := c.spec.SecurityContext; security != nil && security.ReadOnlyRootFilesystem != nil {
		plan.ReadOnly = *security.ReadOnlyRootFilesystem
	}
	expand := func(words []string) []string {
		var out []string
		for _, word := range words {
			out = append(out, expansion.Expand(word, expansion.MappingFuncFor(variables)))
		}
		return out
	}
	switch {
	case len(c.spec.Command) > 0:
		plan.Args = append(expand(c.spec.Command), expand(c.spec.Args)...)
	case len(c.spec.Args) > 0:
		plan.Args = append(append([]string{}, found.Entrypoint...), expand(c.spec.Args)...)
	default:
		plan.Args = append(append([]string{}, found.Entrypoint...), found.Command...)
	}
	if len(plan.Args) == 0 {
		return nil, fmt.Errorf("no command specified")
	}
	for name, value := range variables {
		plan.Env = append(plan.Env, name+"="+value)
	}
	sort.Strings(plan.Env)
	for _, mount := range c.spec.VolumeMounts {
		known := c.pod.volumes[mount.Name]
		if known == nil {
			return nil, fmt.Errorf("volume %q of the mount %s is not there", mount.Name, mount.MountPath)
		}
		sub := mount.SubPath
		if mount.SubPathExpr != "" {
			sub = expansion.Expand(mount.SubPathExpr, expansion.MappingFuncFor(variables))
		}
		source, err := known.sub(sub)
		if err != nil {
			return nil, err
		}
		plan.Mounts = append(plan.Mounts, launch.Mount{
			Source: source, Target: mount.MountPath, ReadOnly: mount.ReadOnly || known.readOnly,
		})
	}
	return plan, nil
}

// environment is the image's, what every pod gets, and the container's own, each over the former.
func (c *container) environment(found *image) (map[string]string, error) {
	object := c.pod.current()
	variables := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "HOSTNAME": object.Name,
		"KUBERNETES_SERVICE_HOST": c.pod.agent.config.APIService, "KUBERNETES_SERVICE_PORT": "443",
	}
	for name, value := range found.Env {
		variables[name] = value
	}
	for _, source := range c.spec.EnvFrom {
		values, err := c.envFrom(object.Namespace, source)
		if err != nil {
			return nil, err
		}
		for name, value := range values {
			variables[source.Prefix+name] = value
		}
	}
	for _, variable := range c.spec.Env {
		if variable.ValueFrom == nil {
			variables[variable.Name] = expansion.Expand(variable.Value, expansion.MappingFuncFor(variables))
			continue
		}
		value, given, err := c.valueFrom(object, variable.ValueFrom)
		if err != nil {
			return nil, err
		}
		if given {
			variables[variable.Name] = value
		}
	}
	return variables, nil
}

func (c *container) envFrom(namespace string, source v1.EnvFromSource) (map[string]string, error) {
	values := map[string]string{}
	if reference := source.SecretRef; reference != nil {
		secret, err := c.pod.agent.secrets.Secrets(namespace).Get(reference.Name)
		if missing(err, reference.Optional) {
			return nil, err
		}
		if secret != nil {
			for name, value := range secret.Data {
				values[name] = string(value)
			}
		}
	}
	if reference := source.ConfigMapRef; reference != nil {
		configMap, err := c.pod.agent.configMaps.ConfigMaps(namespace).Get(reference.Name)
		if missing(err, reference.Optional) {
			return nil, err
		}
		if configMap != nil {
			for name, value := range configMap.Data {
				values[name] = value
			}
		}
	}
	return values, nil
}

func (c *container) valueFrom(object *v1.Pod, source *v1.EnvVarSource) (value string, given bool, err error) {
	switch {
	case source.SecretKeyRef != nil:
		reference := source.SecretKeyRef
		secret, err := c.pod.agent.secrets.Secrets(object.Namespace).Get(reference.Name)
		if missing(err, reference.Optional) {
			return "", false, err
		}
		if secret == nil {
			return "", false, nil
		}
		raw, given := secret.Data[reference.Key]
		if !given && !optional(reference.Optional) {
			err = fmt.Errorf("couldn't find key %s in Secret %s/%s", reference.Key, object.Namespace, reference.Name)
		}
		return string(raw), given, err
	case source.ConfigMapKeyRef != nil:
		reference := source.ConfigMapKeyRef
		configMap, err := c.pod.agent.configMaps.ConfigMaps(object.Namespace).Get(reference.Name)
		if missing(err, reference.Optional) {
			return "", false, err
		}
		if configMap == nil {
			return "", false, nil
		}
		value, given := configMap.Data[reference.Key]
		if !given && !optional(reference.Optional) {
			err = fmt.Errorf("couldn't find key %s in ConfigMap %s/%s", reference.Key, object.Namespace, reference.Name)
		}
		return value, given, err
	case source.FieldRef != nil:
		value, err := c.field(object, source.FieldRef.FieldPath)
		return value, true, err
	}
	return "", false, fmt.Errorf("resourceFieldRef and fileKeyRef are not supported by this node agent")
}

func (c *container) field(object *v1.Pod, path string) (string, error) {
	switch path {
	case "spec.nodeName":
		return object.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return object.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return c.pod.agent.nodes[object.Spec.NodeName].Address, nil
	case "status.podIP", "status.podIPs":
		return c.pod.sandbox.address.String(), nil
	}
	return fieldpath.ExtractFieldPathAsString(object, path)
}

func optional(flag *bool) bool { return flag != nil && *flag }

// missing is true if an error is to be told: also "not found", unless that is allowed.
func missing(err error, flag *bool) bool {
	return err != nil && !(apierrors.IsNotFound(err) && optional(flag))
}

// fileName guards against a key that would lead out of its folder.
func fileName(key string) bool { return !strings.HasPrefix(key, "..") && !filepath.IsAbs(key) }
