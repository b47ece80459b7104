package view

import (
	"slices"

	"skein/mesh/ident"
)

// Filled is the picture with empty lists and maps in place of nil ones, so that
// JSON never says null for a list. It copies what it changes and nothing else.
func (p Picture) Filled() Picture {
	p.Fleet = p.Fleet.Filled()
	if p.Peers == nil {
		p.Peers = []Peer{}
	}
	robots := make([]Robot, len(p.Robots))
	for i, r := range p.Robots {
		robots[i] = r.Filled()
	}
	p.Robots = robots
	return p
}

// Filled is it with nothing null in it but what may be absent.
func (r Robot) Filled() Robot {
	if r.Labels == nil {
		r.Labels = map[string]string{}
	}
	if r.Groups == nil {
		r.Groups = []string{}
	}
	if r.Lifecycle.State == "" {
		r.Lifecycle.State = "discovered"
	}
	return r
}

// Filled is it with nothing null in it.
func (f Fleet) Filled() Fleet {
	if f.Voters == nil {
		f.Voters = []Voter{}
	}
	f.AsOf = f.AsOf.Filled()
	return f
}

// Filled is it with nothing null in it.
func (a AsOf) Filled() AsOf {
	if a.Read == "" {
		a.Read = Local
	}
	if a.Path == nil {
		a.Path = []ident.NodeID{}
	}
	return a
}

// Filled is the list with nothing null in it.
func (n Nodes) Filled() Nodes {
	n.AsOf = n.AsOf.Filled()
	n.Nodes = slices.Clone(n.Nodes)
	if n.Nodes == nil {
		n.Nodes = []Node{}
	}
	for i := range n.Nodes {
		if n.Nodes[i].Addrs == nil {
			n.Nodes[i].Addrs = []string{}
		}
	}
	return n
}

// Filled is the status with nothing null in it but Follow.
func (r Raft) Filled() Raft {
	if r.Voters == nil {
		r.Voters = []ident.NodeID{}
	}
	if r.Nonvoters == nil {
		r.Nonvoters = []ident.NodeID{}
	}
	if r.Follow != nil && r.Follow.Path == nil {
		f := *r.Follow
		f.Path = []ident.NodeID{}
		r.Follow = &f
	}
	return r
}

// Filled is the answer with nothing null in it but asOf.at.
func (d Decided) Filled() Decided {
	d.AsOf = d.AsOf.Filled()
	return d
}

// Filled is the answer with nothing null in it but times of event 0 and asOf.at.
func (d Diff) Filled() Diff {
	d.AsOf = d.AsOf.Filled()
	d.Changes = slices.Clone(d.Changes)
	if d.Changes == nil {
		d.Changes = []Change{}
	}
	for i := range d.Changes {
		if d.Changes[i].Fields == nil {
			d.Changes[i].Fields = []FieldChange{}
		}
	}
	return d
}
