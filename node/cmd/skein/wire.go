package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"skein/node"
	"skein/node/config"
	"skein/sim/live"
)

// starters are the real functions of packages node and sim/live.
func starters() Starters {
	return Starters{
		RunNode:    runNode,
		RunDev:     runDev,
		CommandDev: commandDev,
		InitFleet: func(ctx context.Context, o InitOptions) (InitResult, error) {
			r, err := node.InitFleet(ctx, node.InitOptions{Data: o.Data, Name: o.Name, NodeName: o.NodeName, FleetFileOut: o.FleetFileOut})
			return InitResult{FleetID: string(r.FleetID), FleetFile: r.FleetFile, AdminFile: r.AdminFile, RootKeyFile: r.RootKeyFile}, err
		},
		JoinFleet: func(ctx context.Context, o JoinOptions) (JoinResult, error) {
			r, err := node.JoinFleet(ctx, o.Config, o.Token)
			return JoinResult{FleetName: r.FleetName, FleetID: string(r.FleetID), NodeID: string(r.NodeID), Name: r.Name}, err
		},
	}
}

func runNode(ctx context.Context, c config.Config) error {
	n, err := node.New(c, thisBuild().Version, node.Logger(c, os.Stderr))
	if err != nil {
		return err
	}
	return n.Run(ctx)
}

func runDev(ctx context.Context, o DevOptions) error {
	return live.Run(ctx, live.Options{
		Robots: o.Robots, Voters: o.Voters, HTTP: o.HTTP, Data: o.Data, LAN: o.LAN, Version: thisBuild().Version,
		Say: func(console, loginLink string) {
			if o.JSON {
				json.NewEncoder(o.Out).Encode(map[string]string{"console": console, "login": loginLink})
				return
			}
			fmt.Fprintf(o.Out, "console: %s\n", loginLink)
		},
	})
}

func commandDev(ctx context.Context, data, action, robot string) ([]DevRobot, error) {
	listed, err := live.Command(ctx, data, action, robot)
	robots := make([]DevRobot, len(listed))
	for i, l := range listed {
		robots[i] = DevRobot{Name: l.Name, HTTP: l.HTTP}
	}
	return robots, err
}
