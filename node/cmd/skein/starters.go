package main

import (
	"context"
	"io"

	"skein/node/config"
)

// Starters are the functions that start something on this machine. The command
// line only reads flags for them and prints what they return. Errors may be
// *view.Problem, *event.Fault, *join.Refusal, *config.Error or anything wrapped
// by withCode; their exit codes follow from that.
type Starters struct {
	// RunNode runs a node until ctx ends (nil) or it cannot go on.
	RunNode func(ctx context.Context, c config.Config) error
	// RunDev runs a whole fleet in this process until ctx ends.
	RunDev func(ctx context.Context, o DevOptions) error
	// CommandDev sends "list", "add", "kill" or "start" (the last two with a
	// robot's name) to the fleet that runs in a folder, and returns its robots.
	CommandDev func(ctx context.Context, data, action, robot string) ([]DevRobot, error)
	// InitFleet founds a fleet in a data directory that belongs to none.
	InitFleet func(ctx context.Context, o InitOptions) (InitResult, error)
	// JoinFleet makes this robot a member of the fleet that made the token.
	JoinFleet func(ctx context.Context, o JoinOptions) (JoinResult, error)
}

// DevOptions say what `skein dev` starts.
type DevOptions struct {
	// Robots is how many nodes, Voters how many of them vote.
	Robots, Voters int
	// HTTP is the first node's host:port; the others take the ports after it.
	HTTP string
	// Data is the folder for everything, with client.json for the commands.
	Data string
	// LAN: also speak with robots on the local network, not only on loopback.
	LAN bool
	// JSON: write the address as a JSON line instead of a sentence.
	JSON bool
	// Out gets the line with the console's address.
	Out io.Writer
}

// InitOptions say what `skein fleet init` makes.
type InitOptions struct {
	Data string
	// Name is the fleet's, NodeName the founding node's ("" means host name).
	Name, NodeName string
	// FleetFileOut is where to write the fleet file; "" means in Data.
	FleetFileOut string
}

// InitResult says where the files are that a founder must know.
type InitResult struct {
	FleetID     string `json:"fleetId"`
	FleetFile   string `json:"fleetFile"`
	AdminFile   string `json:"adminFile"`
	RootKeyFile string `json:"rootKeyFile"`
}

// JoinOptions say how `skein join` asks.
type JoinOptions struct {
	// Config is the node's, for its data directory, name and interfaces.
	Config config.Config
	Token  string
}

// DevRobot is one robot of a fleet that `skein dev` runs.
type DevRobot struct {
	Name string `json:"name"`
	// HTTP is its face, "" while it is dead.
	HTTP string `json:"http"`
}

// JoinResult says what the robot became.
type JoinResult struct {
	FleetName string `json:"fleetName"`
	FleetID   string `json:"fleetId"`
	NodeID    string `json:"nodeId"`
	Name      string `json:"name"`
}
