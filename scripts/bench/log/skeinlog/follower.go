package skeinlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"path/filepath"
	"sync"
	"time"

	"skein/consensus/fleet"
	"skein/consensus/follow"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/mesh/link"
	"skein/scripts/bench/log/proc"
)

// FollowerSystem is the name of the process of one follower, whose spec is that
// of the voters with an index of its own.
const FollowerSystem = "skein follower"

// MaxFollowers is how many followers a fleet can have here.
const MaxFollowers = 64

// Follower is a node that does not vote, with a copy of the log on disk.
type Follower struct {
	index   int
	host    *link.Host
	replica *replica.Replica
	follow  *follow.Service
	stop    context.CancelFunc
	ended   chan error
}

// NewFollower starts follower i with its copy in dir. It follows parent, or one
// of the voters at ports if that is nil.
func NewFollower(i int, dir string, ports [][2]int, parent *Follower) (*Follower, error) {
	f := &Follower{index: firstFollower + i, ended: make(chan error, 1)}
	var candidates []follow.Candidate
	var err error
	if f.host, err = host(f.index, 0); err != nil {
		return nil, err
	}
	if parent != nil {
		f.host.Know(endpoint(parent.index, int(parent.host.Port())))
		candidates = []follow.Candidate{{ID: id(parent.index)}}
	} else {
		for v := range Voters {
			f.host.Know(endpoint(v, ports[v][0]))
			candidates = append(candidates, follow.Candidate{ID: id(v), Voter: true})
		}
	}
	if f.replica, err = replica.Open(filepath.Join(dir, fmt.Sprintf("follower%d", i)), replica.Options{TailBytes: replica.DefaultTailBytes}); err != nil {
		return nil, errors.Join(err, f.host.Close())
	}
	f.follow = follow.New(follow.Config{
		Self: id(f.index), Link: streams{f.host, follow.Protocol}, Source: f.replica, Sink: f.replica, Log: silent(),
		Candidates: func() []follow.Candidate { return candidates },
	})
	f.host.Handle(follow.Protocol, func(ctx context.Context, s *link.Stream) { f.follow.Handle(ctx, s, s.Remote()) })
	ctx, stop := context.WithCancel(context.Background())
	f.stop = stop
	go func() { f.ended <- f.follow.Run(ctx) }()
	return f, nil
}

// Depth is how many nodes are between this follower's copy and the leader, and
// whether it has heard from the leader yet.
func (f *Follower) Depth() (int, bool) {
	m, _, ok := f.follow.Latest()
	return len(m.Path), ok
}

// Seq is the last event of the copy.
func (f *Follower) Seq() uint64 { return f.replica.Cursor().Seq }

// Watch calls seen with the copy's last event after every change, until ctx ends.
func (f *Follower) Watch(ctx context.Context, seen func(seq uint64, at time.Time)) {
	changed, release := f.replica.Subscribe()
	defer release()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			seen(f.Seq(), time.Now())
		}
	}
}

// Close ends the follower.
func (f *Follower) Close() error {
	f.stop()
	return errors.Join(<-f.ended, f.host.Close(), f.replica.Close())
}

// lonely is the inside of the process of one follower.
type lonely struct{ *Follower }

// StartFollower starts the follower of a spec.
func StartFollower(_ context.Context, s proc.Spec) (proc.Member, error) {
	f, err := NewFollower(s.Index, s.Own(), s.Ports, nil)
	return lonely{f}, err
}

// Reading asks for reads of the copy: from so many goroutines, for so long.
type Reading struct {
	Readers int
	Wall    time.Duration
}

// ReadingResult is what Reading gave. Times are upper bounds of a bucket, a
// sixteenth of a power of two wide.
type ReadingResult struct {
	PerSecond          float64
	P50Nanos, P99Nanos float64
	// Seq is where the copy was at the end: it must have moved under load.
	Seq uint64
}

// Obey implements proc.Member: "read" and "seq".
func (l lonely) Obey(_ context.Context, order string, argument json.RawMessage) (any, error) {
	switch order {
	case "seq":
		return l.Seq(), nil
	case "read":
		var what Reading
		if err := json.Unmarshal(argument, &what); err != nil {
			return nil, err
		}
		return l.read(what)
	}
	return nil, fmt.Errorf("followers know no order %q", order)
}

// read looks robots up in the state, as whoever answers a request does.
func (l lonely) read(what Reading) (ReadingResult, error) {
	robots := make([]ident.NodeID, Robots)
	for i := range robots {
		robots[i] = id(firstRobot + i)
	}
	tallies := make([]histogram, what.Readers)
	missing := make([]int, what.Readers)
	over := time.Now().Add(what.Wall)
	var all sync.WaitGroup
	for r := range tallies {
		all.Go(func() {
			for n := r; ; n++ {
				about := robots[n%Robots]
				began := time.Now()
				l.replica.View(func(s *fleet.State) {
					if _, ok := s.Robot(about); !ok {
						missing[r]++
					}
				})
				ended := time.Now()
				tallies[r].add(ended.Sub(began))
				if ended.After(over) {
					return
				}
			}
		})
	}
	all.Wait()
	var sum histogram
	for r := range tallies {
		sum.merge(&tallies[r])
		if missing[r] > 0 {
			return ReadingResult{}, errors.New("the copy lacks robots that were registered")
		}
	}
	return ReadingResult{PerSecond: float64(sum.count) / what.Wall.Seconds(), P50Nanos: sum.quantile(0.5), P99Nanos: sum.quantile(0.99), Seq: l.Seq()}, nil
}

// histogram counts durations in buckets, sixteen for each power of two of
// nanoseconds.
type histogram struct {
	count   int
	buckets [64 * 16]int
}

func (h *histogram) add(d time.Duration) {
	h.count++
	h.buckets[bucket(uint64(max(d, 1)))]++
}

func bucket(n uint64) int {
	power := bits.Len64(n) - 1
	if power < 4 {
		return int(n)
	}
	return power*16 + int(n>>(power-4))&15
}

// upper is the upper bound of a bucket.
func upper(b int) float64 {
	if b < 16 {
		return float64(b)
	}
	power, part := b/16, b%16
	return float64(uint64(16+part+1) << (power - 4))
}

func (h *histogram) merge(o *histogram) {
	h.count += o.count
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
}

func (h *histogram) quantile(q float64) float64 {
	left := int(q * float64(h.count))
	for i, n := range h.buckets {
		if left -= n; left < 0 {
			return upper(i)
		}
	}
	return 0
}
