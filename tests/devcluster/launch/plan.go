// Package launch is what the agent and the small program `pod` agree on: how a container is described to the process
// that becomes it. It is apart from both so that `pod` links no Kubernetes library: that start would cost each
// container 50 ms and 30 MB.
package launch

// Files that the agent hands to `pod run`, by descriptor.
const (
	PlanFD  = 3 // the Plan as JSON
	ErrorFD = 4 // what went wrong; closed without a word when the program runs
)

// Plan is one container.
type Plan struct {
	Layer    string   // folder on a tmpfs for what the container writes outside of its mounts
	ReadOnly bool     // its root cannot be written
	Hostname string   // the pod's name
	WorkDir  string   // in the container
	Args     []string // the program, looked up in the PATH of Env, and its arguments
	Env      []string // KEY=value
	Mounts   []Mount  // in order
	Shared   bool     // the program is not PID 1
}

// Mount shows a file or folder of the machine inside the container.
type Mount struct {
	Source, Target string
	ReadOnly       bool
}
