package node

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"skein/consensus/replica"
	"skein/consensus/views"
	"skein/mesh/ident"
	"skein/mesh/link"
	"skein/node/config"
)

// ErrKilled, as the cause of Run's context, makes the node end as a power cut
// would: it says no goodbye and hands nothing over.
var ErrKilled = errors.New("killed")

// ErrRevoked: an admin has revoked this node.
var ErrRevoked = errors.New("this robot was revoked")

// ErrUpgrade: this build is too old for what the fleet has decided.
var ErrUpgrade = replica.ErrUpgrade

// Node is one node. Make it with New, then call Run once.
type Node struct {
	self  *self
	host  *link.Host
	up    chan struct{}
	trust *trust
	// left: the node is no member any more; its files go to the attic.
	left bool

	mu   sync.Mutex
	body *body // nil until the node is admitted
}

// New opens the data directory and listens for streams. It takes no part in
// anything before Run. version is that of the build, which the robot registers.
// A caller that does not call Run must call Close.
func New(cfg config.Config, version string, log *slog.Logger) (*Node, error) {
	s, err := openSelf(cfg, version, log)
	if err != nil {
		return nil, err
	}
	n := &Node{self: s, trust: newTrust(), up: make(chan struct{})}
	if err := n.listen(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return n, nil
}

// listen opens the link; before admission only to speak with who admits.
func (n *Node) listen() error {
	root := []byte(nil)
	if m := n.self.member.Load(); m != nil {
		root = m.Root
	} else {
		c, err := n.self.credential()
		if err != nil {
			return err
		}
		root = c.Root()
	}
	at := netip.AddrPortFrom(netip.IPv4Unspecified(), n.self.cfg.Mesh.LinkPort)
	if n.self.cfg.Mesh.Loopback {
		at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), n.self.cfg.Mesh.LinkPort)
	}
	var err error
	n.host, err = link.New(link.Config{
		Key: n.self.key, Root: root, Listen: at, Chain: n.self.chain,
		Refused: n.trust.refused, Vouched: n.trust.vouched, Heard: n.trust.heard,
		Tell: func() link.Told { return n.trust.tell(n.self.level) }, Now: func() time.Time { return n.self.now() }, Log: n.self.log,
	})
	return err
}

// Close gives back what New opened. Run does it too.
func (n *Node) Close() error { return errors.Join(n.host.Close(), n.self.close()) }

// ID is who this node is.
func (n *Node) ID() ident.NodeID { return n.self.key.ID() }

// Up is closed when the node is a member and serves its face.
func (n *Node) Up() <-chan struct{} { return n.up }

// Face is the address of the node's console, "" before Up.
func (n *Node) Face() string {
	if b := n.assembled(); b != nil {
		return b.face.url()
	}
	return ""
}

// assembled is what the node is made of, nil before Up.
func (n *Node) assembled() *body {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.body
}

// LoginLink makes a link that logs person in once, within good. Only a voter can.
func (n *Node) LoginLink(person string, good time.Duration) (string, error) {
	b := n.assembled()
	if b == nil {
		return "", errors.New("make login link: the node is not up yet")
	}
	scopes := []string(nil)
	if p, ok := (directory{store: n.trust.store.Load()}).Person(person); ok {
		scopes = p.Scopes
	}
	return b.face.loginLink(person, scopes, good)
}

// Run joins the fleet if the node is not a member, and takes part until ctx
// ends (nil) or it cannot go on.
func (n *Node) Run(ctx context.Context) error {
	err := n.run(ctx)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	err = errors.Join(err, n.host.Close())
	if n.left {
		attic, forgetErr := n.self.dir.Forget(time.Now().Unix())
		n.self.log.Info("left the fleet; delete the old files when you are sure", "files", attic)
		err = errors.Join(err, forgetErr)
	}
	return errors.Join(err, n.self.close())
}

func (n *Node) run(ctx context.Context) error {
	if n.self.member.Load() == nil {
		c, err := n.self.credential()
		if err != nil {
			return err
		}
		n.self.log.Info("waiting to be admitted", "node", n.ID(), "name", n.self.cfg.NodeName(), "fleet", ident.FleetIDOf(c.Root()))
		if err := n.self.joinFleet(ctx, n.host, c, true); err != nil {
			return err
		}
	}
	m := n.self.member.Load()
	n.self.log.Info("member of the fleet", "node", n.ID(), "name", n.self.cfg.NodeName(), "fleet", m.FleetName, "fleetID", m.Fleet())
	epochs, err := openEpochs(filepath.Join(n.self.dir.Path(), "epochs.json"), m.Fleet())
	if err != nil {
		return err
	}
	n.trust.epochs.Store(epochs)
	models := views.New()
	store, err := replica.Open(n.self.dir.Log(), n.self.keeps(models))
	if err != nil {
		return err
	}
	err = n.takePart(ctx, store, models)
	return errors.Join(err, store.Close())
}

// keeps is how much of the log's past this node keeps: all that its configuration
// allows if it may vote, else a tail.
func (s *self) keeps(observer replica.Observer) replica.Options {
	o := replica.Options{MaxBytes: s.cfg.History.MaxBytes, MaxAge: s.cfg.History.MaxAge, Observer: observer, Log: s.log}
	if _, err := os.Stat(s.dir.Raft()); err != nil && !s.cfg.Voter {
		o.MaxBytes, o.MaxAge = 0, 0
		if o.TailBytes = replica.DefaultTailBytes; s.cfg.History.MaxBytes > 0 {
			o.TailBytes = min(o.TailBytes, s.cfg.History.MaxBytes)
		}
	}
	return o
}

// takePart makes the parts of a member and runs them.
func (n *Node) takePart(ctx context.Context, store *replica.Replica, models *views.Views) error {
	n.trust.store.Store(store)
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	b := &body{self: n.self, host: n.host, trust: n.trust, store: store, end: end}
	if err := b.assemble(models); err != nil {
		return err
	}
	n.mu.Lock()
	n.body = b
	n.mu.Unlock()
	close(n.up)
	err := runParts(ctx, n.self.log, b.parts())
	b.proposer.Close()
	b.answers.reads.Close()
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errLeft):
		n.left = true
	case errors.Is(cause, ErrRevoked):
		err = errors.Join(err, cause)
	}
	return err
}
