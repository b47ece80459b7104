package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"skein/scripts/bench/log/skeinlog"
	"skein/scripts/benchjson"
)

// parents is the tree: -1 follows a voter, others the follower of that number.
// Twenty followers on three levels.
func parents() []int {
	return []int{-1, -1, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7}
}

// paced is how many events a second are written while the tree is watched.
const paced = 100

// tree measures how long after its answer a write shows on twenty followers, and
// on the last of them.
func tree(ctx context.Context, out *report, s settings) error {
	dir, err := os.MkdirTemp(s.dir, "bench-log")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := startCluster(ctx, kinds()[0], dir)
	if err != nil {
		return err
	}
	defer c.stop()
	if err := c.ready(ctx); err != nil {
		return err
	}
	var followers []*skeinlog.Follower
	defer func() {
		for _, f := range followers {
			err = errors.Join(err, f.Close())
		}
	}()
	for i, p := range parents() {
		var parent *skeinlog.Follower
		if p >= 0 {
			parent = followers[p]
		}
		f, err := skeinlog.NewFollower(i, dir, c.ports, parent)
		if err != nil {
			return err
		}
		followers = append(followers, f)
	}
	writer := c.clients[0].(*skeinlog.Client)
	first, err := writer.AppendAt(ctx)
	if err != nil {
		return err
	}
	if err := awaitTree(ctx, followers, first); err != nil {
		return err
	}
	w := watch(ctx, followers)
	events, err := w.write(ctx, writer, max(int(s.wall.Seconds()*5*paced), 4*paced))
	if err != nil {
		return err
	}
	if err := awaitTree(ctx, followers, events); err != nil {
		return err
	}
	w.end()
	w.print(out)
	return nil
}

// awaitTree waits until all followers hold event seq and know who leads.
func awaitTree(ctx context.Context, followers []*skeinlog.Follower, seq uint64) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, f := range followers {
		for _, heard := f.Depth(); f.Seq() < seq || !heard; _, heard = f.Depth() {
			select {
			case <-ctx.Done():
				return fmt.Errorf("a follower stands at event %d, not %d: %w", f.Seq(), seq, ctx.Err())
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	return nil
}

// watched is when events were written, and when each follower had them.
type watched struct {
	stop context.CancelFunc
	all  sync.WaitGroup

	mu sync.Mutex
	// answered has the time of the answer for each event, seen that of the first
	// look at a copy that has it.
	answered map[uint64]time.Time
	seen     []map[uint64]time.Time
}

func watch(ctx context.Context, followers []*skeinlog.Follower) *watched {
	ctx, stop := context.WithCancel(ctx)
	w := &watched{stop: stop, answered: map[uint64]time.Time{}, seen: make([]map[uint64]time.Time, len(followers))}
	for i, f := range followers {
		last := f.Seq()
		w.seen[i] = map[uint64]time.Time{}
		w.all.Go(func() {
			f.Watch(ctx, func(seq uint64, at time.Time) {
				for ; last < seq; last++ {
					w.seen[i][last+1] = at
				}
			})
		})
	}
	return w
}

// end waits for the watchers; seen may be read after it.
func (w *watched) end() {
	time.Sleep(50 * time.Millisecond) // a copy moves before its watcher is told
	w.stop()
	w.all.Wait()
}

// write writes events at an even pace and gives the last one's number.
func (w *watched) write(ctx context.Context, writer *skeinlog.Client, events int) (last uint64, err error) {
	tick := time.NewTicker(time.Second / paced)
	defer tick.Stop()
	var all sync.WaitGroup
	var failed error
	for range events {
		<-tick.C
		all.Go(func() {
			seq, err := writer.AppendAt(ctx)
			at := time.Now()
			w.mu.Lock()
			defer w.mu.Unlock()
			if err != nil {
				failed = err
				return
			}
			w.answered[seq] = at
			last = max(last, seq)
		})
	}
	all.Wait()
	return last, failed
}

func (w *watched) print(out *report) {
	var each, worst []float64
	lost := 0
	for seq, answered := range w.answered {
		most := 0.0
		for i := range w.seen {
			at, ok := w.seen[i][seq]
			if !ok {
				lost++
				continue
			}
			lag := max(at.Sub(answered).Seconds()*1000, 0) // a follower may have it before the answer arrives
			each = append(each, lag)
			most = max(most, lag)
		}
		worst = append(worst, most)
	}
	name := fmt.Sprintf("tree: 20 followers on 3 levels, %d events/s, answer to the writer until it shows, ", paced)
	out.alone(name+"on a follower, p50", "ms", benchjson.Percentile(each, 50))
	out.alone(name+"on a follower, p99", "ms", benchjson.Percentile(each, 99))
	out.alone(name+"on the last of them, p99", "ms", benchjson.Percentile(worst, 99))
	if lost > 0 {
		out.alone(name+"never seen", "events", float64(lost))
	}
}
