// Networks: one bridge for the cluster, and for each pod a network namespace of its own with one address on that
// bridge, so that two pods may listen on the same port. Cluster addresses of Services are local addresses of the
// namespace that the agent is in, where proxy.go listens on them.
package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const bridgeName = "pods"

var bridgeHardware = net.HardwareAddr{0x02, 0, 0x0a, 0x7f, 0, 1} // a local one

// makeNetwork prepares the empty network namespace that the whole cluster lives in.
func makeNetwork(settings *config) error {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(loopback); err != nil {
		return err
	}
	// Without a hardware address of its own a bridge takes its lowest port's, and so changes it as pods come and go: the
	// others would not find the gateway for half a minute.
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName, HardwareAddr: bridgeHardware}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("adding a bridge: %w", err)
	}
	addresses := []string{settings.Gateway}
	for _, node := range settings.Nodes {
		addresses = append(addresses, node.Address)
	}
	for _, text := range addresses {
		address, err := netlink.ParseAddr(fmt.Sprintf("%s/%d", text, settings.PrefixLength))
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(bridge, address); err != nil {
			return fmt.Errorf("adding the address %s: %w", text, err)
		}
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return err
	}
	// A route of type local makes every address of the network one of ours, without adding each.
	_, services, err := net.ParseCIDR(settings.ServiceNetwork)
	if err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{
		LinkIndex: loopback.Attrs().Index, Dst: services, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL,
		Scope: unix.RT_SCOPE_HOST,
	})
}

// network hands out sandboxes.
type network struct {
	config *config
	mu     sync.Mutex
	next   netip.Addr
	used   map[netip.Addr]bool
}

func newNetwork(settings *config) *network {
	return &network{config: settings, next: netip.MustParseAddr(settings.FirstPod), used: map[netip.Addr]bool{}}
}

// sandbox is a pod's network: it exists as long as its descriptor is open or a process is in it.
type sandbox struct {
	network *network
	address netip.Addr
	handle  netns.NsHandle
}

// open makes a network namespace. An address comes back into use as late as possible: a client that still talks to a
// pod that is gone must not reach another one.
func (n *network) open() (*sandbox, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	last := netip.MustParsePrefix(n.config.ServiceNetwork).Addr()
	for tries := 0; n.used[n.next]; tries++ {
		if n.next = n.next.Next(); !n.next.Less(last) {
			n.next = netip.MustParseAddr(n.config.FirstPod)
		}
		if tries > len(n.used) {
			return nil, errors.New("no pod address is free")
		}
	}
	box := &sandbox{network: n, address: n.next}
	if err := box.make(); err != nil {
		return nil, err
	}
	n.used[box.address] = true
	if n.next = n.next.Next(); !n.next.Less(last) {
		n.next = netip.MustParseAddr(n.config.FirstPod)
	}
	return box, nil
}

func (s *sandbox) make() error {
	var err error
	if s.handle, err = emptyNamespace(); err != nil {
		return fmt.Errorf("making a network namespace: %w", err)
	}
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return err
	}
	raw := s.address.As4()
	name := fmt.Sprintf("pod%02x%02x", raw[2], raw[3])
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name, MasterIndex: bridge.Attrs().Index, Flags: net.FlagUp},
		PeerName:  "eth0", PeerNamespace: netlink.NsFd(s.handle),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("adding the pod's network interface: %w", err)
	}
	inside, err := netlink.NewHandleAt(s.handle)
	if err != nil {
		return err
	}
	defer inside.Close()
	for _, name := range []string{"lo", "eth0"} {
		link, err := inside.LinkByName(name)
		if err != nil {
			return err
		}
		if name == "eth0" {
			address, err := netlink.ParseAddr(fmt.Sprintf("%s/%d", s.address, s.network.config.PrefixLength))
			if err != nil {
				return err
			}
			if err := inside.AddrAdd(link, address); err != nil {
				return err
			}
		}
		if err := inside.LinkSetUp(link); err != nil {
			return err
		}
	}
	return inside.RouteAdd(&netlink.Route{Gw: net.ParseIP(s.network.config.Gateway)})
}

// emptyNamespace makes one on a thread that ends with it.
func emptyNamespace() (netns.NsHandle, error) {
	type result struct {
		handle netns.NsHandle
		err    error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread is in the wrong namespace now, and ends
		handle, err := netns.New()
		made <- result{handle, err}
	}()
	got := <-made
	return got.handle, got.err
}

// dial connects to a port inside the pod, also to one that listens on its loopback only, as a port-forward does.
func (s *sandbox) dial(port int32) (*net.TCPConn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	dialled := make(chan result)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(s.handle); err != nil {
			dialled <- result{nil, err}
			return
		}
		// A socket keeps the namespace that it was made in; a literal address is dialled on this very thread.
		conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		dialled <- result{conn, err}
	}()
	got := <-dialled
	if got.err != nil {
		return nil, got.err
	}
	return got.conn.(*net.TCPConn), nil
}

// close lets the namespace and its interface go when the kernel gets round to it.
func (s *sandbox) close() {
	s.handle.Close()
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	delete(s.network.used, s.address)
}
