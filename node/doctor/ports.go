package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// checkPorts tries to listen where the node will. A port that the running node
// holds is fine; anybody else's is not.
func checkPorts(ctx context.Context, ports []Port, node answer) []Check {
	checks := make([]Check, 0, len(ports))
	for _, p := range ports {
		checks = append(checks, checkPort(ctx, p, node))
	}
	return checks
}

func checkPort(ctx context.Context, p Port, node answer) Check {
	name := "port." + p.Name
	_, portText, err := net.SplitHostPort(p.Addr)
	number, numberErr := strconv.ParseUint(portText, 10, 16)
	if err = errors.Join(err, numberErr); err != nil {
		return Check{name, Fail, fmt.Sprintf("%q is no host:port", p.Addr), fmt.Sprintf("set %s in the configuration file; `skein run --example` shows how", p.Key)}
	}
	if number == 0 {
		return Check{name, OK, "any free port will be taken", ""}
	}
	for _, network := range p.Networks {
		if err := tryListen(ctx, network, p.Addr); err != nil {
			return portTrouble(name, network, p, uint16(number), node, err)
		}
	}
	return Check{name, OK, fmt.Sprintf("%s is free", p.Addr), ""}
}

func portTrouble(name, network string, p Port, number uint16, node answer, err error) Check {
	holder := node.Holders[number]
	switch {
	case errors.Is(err, syscall.EADDRINUSE) && holder != "" && holder == node.Name:
		return Check{name, OK, fmt.Sprintf("%s is held by the running node %s", p.Addr, node.Name), ""}
	case errors.Is(err, syscall.EADDRINUSE) && holder != "":
		return Check{name, Warn, fmt.Sprintf("%s (%s) is held by %s, another robot of the fleet on this machine", p.Addr, network, holder),
			fmt.Sprintf("before this one can use it, stop that one, or set %s to another port in the configuration file", p.Key)}
	case errors.Is(err, syscall.EADDRINUSE) && node.forbidden:
		return Check{name, Skip, fmt.Sprintf("%s is held, maybe by the node, which this user may not ask", p.Addr), asNodesUser}
	case errors.Is(err, syscall.EADDRINUSE):
		flag := "-ltnp"
		if network == "udp" {
			flag = "-lunp"
		}
		return Check{name, Fail, fmt.Sprintf("%s (%s) is held by another program", p.Addr, network),
			fmt.Sprintf("sudo ss %s 'sport = :%d' shows which; or set %s to another port in the configuration file", flag, number, p.Key)}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return Check{name, Fail, fmt.Sprintf("%s is no address of this machine", p.Addr),
			fmt.Sprintf("leave the host out of %s in the configuration file to listen on all addresses", p.Key)}
	case errors.Is(err, syscall.EACCES):
		return Check{name, Fail, fmt.Sprintf("this user may not listen on %s", p.Addr),
			fmt.Sprintf("set %s to a port above 1023 in the configuration file", p.Key)}
	}
	return Check{name, Fail, fmt.Sprintf("cannot listen on %s (%s): %v", p.Addr, network, err),
		fmt.Sprintf("set %s to another address in the configuration file", p.Key)}
}

// tryListen listens and lets go at once.
func tryListen(ctx context.Context, network, addr string) error {
	var lc net.ListenConfig
	if network == "udp" {
		pc, err := lc.ListenPacket(ctx, network, addr)
		if err != nil {
			return err
		}
		return pc.Close()
	}
	l, err := lc.Listen(ctx, network, addr)
	if err != nil {
		return err
	}
	return l.Close()
}
