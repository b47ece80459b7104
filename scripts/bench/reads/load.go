package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"skein/consensus/event"
	"skein/node/client"
	"skein/scripts/benchjson"
)

// load is a way in which a question is asked.
type load struct {
	name string
	// every is when each client asks again; 0 is as soon as it has its answer.
	every time.Duration
	// renames is how many robots a second are renamed meanwhile.
	renames int
}

func loads() []load {
	return []load{
		{fmt.Sprintf("%d clients, %d/s each", askers, perSecond), time.Second / perSecond, 0},
		{fmt.Sprintf("%d clients, %d/s each, %d renames/s", askers, perSecond, renames), time.Second / perSecond, renames},
		{fmt.Sprintf("%d clients", askers), 0, 0},
	}
}

// measureOne asks one question in one way and prints the figures.
func (n *node) measureOne(clients []*client.Client, q question, l load, each time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), each+startTimeout)
	defer cancel()
	renaming, ended := context.WithCancel(ctx)
	renamed := make(chan error, 1)
	go func() { renamed <- n.rename(renaming, clients[0], l.renames) }()
	before, err := n.usage()
	began := time.Now()
	var took []float64
	if err == nil {
		took, err = ask(ctx, clients, q, l.every, each)
	}
	answers, seconds := float64(len(took)), time.Since(began).Seconds()
	ended()
	after, afterErr := n.usage()
	if err = errors.Join(err, afterErr, <-renamed); err != nil {
		return err
	}
	name := fmt.Sprintf("reads/%d robots/%d events/%s/%s", robots, n.last, l.name, q.name)
	results := []benchjson.Result{
		{Bench: name + "/p50", Unit: "ms", Ours: benchjson.Percentile(took, 50)},
		{Bench: name + "/p99", Unit: "ms", Ours: benchjson.Percentile(took, 99)},
		{Bench: name, Unit: "1/s", Ours: answers / seconds},
		{Bench: name + "/node's CPU an answer", Unit: "ms", Ours: (after.node - before.node) * 1000 / answers},
		{Bench: name + "/CPU of the load generator", Unit: "%", Ours: (after.own - before.own) / seconds * 100},
	}
	if q.goal > 0 {
		results[1].Peer, results[1].Theirs = "goal", q.goal
	}
	for _, r := range results {
		if err := benchjson.Print(os.Stdout, r); err != nil {
			return err
		}
	}
	return nil
}

// ask gives how many milliseconds each answer took since the question was due.
func ask(ctx context.Context, clients []*client.Client, q question, every, d time.Duration) ([]float64, error) {
	var (
		mu    sync.Mutex
		took  []float64
		first error
		wg    sync.WaitGroup
	)
	began := time.Now()
	for who, c := range clients {
		// Clients at a steady rate take turns.
		due := began.Add(every * time.Duration(who) / time.Duration(len(clients)))
		wg.Go(func() {
			for i := who; due.Sub(began) < d; i += len(clients) {
				time.Sleep(time.Until(due))
				err := c.Copy(ctx, q.path, q.query(i), io.Discard)
				millis := float64(time.Since(due)) / float64(time.Millisecond)
				mu.Lock()
				took = append(took, millis)
				if first == nil {
					first = err
				}
				mu.Unlock()
				if err != nil {
					return
				}
				if due = due.Add(every); every == 0 {
					due = time.Now()
				}
			}
		})
	}
	wg.Wait()
	return took, first
}

// rename gives robots other names, one after another, until ctx ends.
func (n *node) rename(ctx context.Context, c *client.Client, perSecond int) error {
	if perSecond == 0 {
		return nil
	}
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		// Robot 0 and those after it; the one that is asked for keeps its name.
		name := fmt.Sprintf("kiwi-%04d-%d", n.renamed%(robots/2), n.renamed)
		draft := event.RobotConfigChanged{Name: name}.Draft(n.robots[n.renamed%(robots/2)])
		n.renamed++
		if _, err := c.Propose(ctx, draft); err != nil && ctx.Err() == nil {
			return fmt.Errorf("rename a robot: %w", err)
		}
	}
}

// usage is processor time in seconds: the node's and this process's.
type usage struct{ node, own float64 }

func (n *node) usage() (u usage, err error) {
	p, err := procfs.NewProc(n.pid)
	if err != nil {
		return u, err
	}
	stat, err := p.Stat()
	if err != nil {
		return u, err
	}
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		return u, err
	}
	return usage{stat.CPUTime(), time.Duration(own.Utime.Nano() + own.Stime.Nano()).Seconds()}, nil
}
