package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"skein/node/client"
	"skein/node/config"
	"skein/node/datadir"
	"skein/node/doctor"
	"skein/node/gateway/view"
)

// askNodeTimeout bounds the question to a node that may run here.
const askNodeTimeout = 3 * time.Second

func (a *app) doctorCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check this machine and say how to mend what is wrong",
		Long: "Check clock, ports, multicast, disk, memory, keys and configuration of this machine, and\n" +
			"print the fix for whatever is wrong. The exit code is 1 if a check fails.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, configErr := s.load(cmd.Flags())
			if configErr != nil {
				c = config.Default()
				if cmd.Flags().Changed("data") {
					c.Data = s.over.Data
				}
			}
			report := doctor.Run(cmd.Context(), a.examination(c, s.file, configErr))
			if err := a.print(report, func(w io.Writer) { reportHuman(w, report) }); err != nil {
				return err
			}
			if report.Failed > 0 {
				return fmt.Errorf("%d of %d checks failed; do what stands behind the arrows, then run `skein doctor` again", report.Failed, len(report.Checks))
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	s.register(cmd.Flags(), "config", "data", "http")
	return cmd
}

// examination says what to check on a machine whose node is configured by c.
func (a *app) examination(c config.Config, file string, configErr error) doctor.Options {
	if configErr != nil && file == "" {
		file = "the command line"
	}
	interfaces := c.Mesh.Interfaces
	if c.Mesh.Loopback {
		interfaces = []string{"lo"}
	}
	in := func(name string) string { return filepath.Join(c.Data, name) }
	return doctor.Options{
		Machine:        a.machine,
		Data:           c.Data,
		KeyFile:        in(nodeKeyName),
		MembershipFile: in(membershipName),
		PrivateFiles:   []string{in(adminFileName), in(adminKeyName), in(rootKeyName), in(fleetFileName)},
		ConfigFile:     file,
		ConfigError:    configErr,
		Ports: []doctor.Port{
			{Name: "http", Key: "http", Networks: []string{"tcp"}, Addr: c.HTTP},
			{Name: "link", Key: "mesh.link_port", Networks: []string{"tcp"}, Addr: fmt.Sprintf(":%d", c.Mesh.LinkPort)},
			{Name: "gossip", Key: "mesh.gossip_port", Networks: []string{"tcp", "udp"}, Addr: fmt.Sprintf(":%d", c.Mesh.GossipPort)},
		},
		Interfaces: interfaces,
		Node:       func(ctx context.Context) (doctor.Running, error) { return a.localNode(ctx, c.Data) },
	}
}

// localNode asks the node of this data directory, or else a dev fleet that was
// started in this folder. A dev fleet's nodes hold several ports here.
func (a *app) localNode(ctx context.Context, data string) (doctor.Running, error) {
	ctx, cancel := context.WithTimeout(ctx, askNodeTimeout)
	defer cancel()
	socket := client.Options{Addresses: []string{"unix:" + filepath.Join(data, datadir.ControlSocketName)}, Now: a.now}
	running, err := askRunning(ctx, socket)
	if err == nil {
		return running, nil
	}
	dev, devErr := client.LoadDevFleet(filepath.Join(devFolder, devFileName))
	if devErr != nil {
		return doctor.Running{}, err
	}
	o := client.Options{Addresses: dev.HTTP, Now: a.now}
	if o.Identity, devErr = client.LoadIdentity(dev.Identity); devErr != nil {
		return doctor.Running{}, errors.Join(err, devErr)
	}
	return askRunning(ctx, o)
}

func askRunning(ctx context.Context, o client.Options) (doctor.Running, error) {
	c, err := client.New(o)
	if err != nil {
		return doctor.Running{}, err
	}
	defer c.Close()
	raft, err := c.Raft(ctx)
	if err != nil {
		return doctor.Running{}, err
	}
	list, err := c.Nodes(ctx)
	if err != nil {
		return doctor.Running{}, err
	}
	here, err := ownAddresses()
	if err != nil {
		return doctor.Running{}, err
	}
	r := doctor.Running{Holders: map[uint16]string{}}
	for _, n := range list.Nodes {
		if n.ID == raft.Node {
			r.Name = n.Name
		}
		if n.ID == raft.Node || n.State == view.Alive && isHere(n, here) {
			for _, port := range []uint16{n.LinkPort, n.GossipPort, n.HTTPPort} {
				r.Holders[port] = n.Name
			}
		}
		if n.ClockSkewMillis != nil {
			r.Skews = append(r.Skews, doctor.Skew{Robot: n.Name, Millis: *n.ClockSkewMillis})
		}
	}
	return r, nil
}

// ownAddresses are this machine's IP addresses as text.
func ownAddresses() ([]string, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list own addresses: %w", err)
	}
	var texts []string
	for _, a := range addrs {
		ip, _, _ := strings.Cut(a.String(), "/")
		texts = append(texts, ip)
	}
	return texts, nil
}

func isHere(n view.Node, here []string) bool {
	return slices.ContainsFunc(n.Addrs, func(addr string) bool { return slices.Contains(here, addr) })
}

func reportHuman(w io.Writer, r doctor.Report) {
	for _, c := range r.Checks {
		fmt.Fprintf(w, "%-4s  %-17s %s\n", c.Status, c.Name, clean(c.Found))
		if c.Fix != "" && c.Status != doctor.Skip {
			fmt.Fprintf(w, "%24s-> %s\n", "", clean(c.Fix))
		}
	}
}
