package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"skein/node/client"
	"skein/node/gateway/view"
	"skein/sim/trial"
)

// label is the robot's label that serves as a register.
const label = "chaos"

// pause is between a client's operations, so that a history stays checkable.
const pause = 20 * time.Millisecond

// diary is what all clients saw.
type diary struct {
	began time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
	// acked is the event of every write that was acknowledged.
	acked map[string]uint64
	// never is every write of which it was said that it does not happen.
	never map[string]error
	// reads, refused and unknown count operations.
	reads, refused, unknown int
	// lastNoRead is why the newest read that failed did.
	lastNoRead error
}

func (d *diary) noRead(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lastNoRead = err
}

func (d *diary) now() int64 { return int64(time.Since(d.began)) }

// worker is one client at one robot.
type worker struct {
	id     int
	client *client.Client
	// robots are the registers.
	robots []string
	diary  *diary
}

// run works until ctx ends.
func (w *worker) run(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		register := (i + w.id) % len(w.robots)
		if (i/len(w.robots)+w.id)%3 == 0 {
			w.write(register, fmt.Sprintf("c%d-%d", w.id, i))
		} else {
			w.read(register)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (w *worker) write(register int, value string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	data, err := json.Marshal(map[string]any{"set": map[string]string{label: value}, "remove": []string{}})
	if err != nil {
		panic(err)
	}
	called := w.diary.now()
	receipt, err := w.client.Propose(ctx, view.Draft{Stream: "robot/" + w.robots[register], Type: "robot.labels_changed", Data: data})
	op := porcupine.Operation{ClientId: w.id, Input: asked{register, value}, Call: called, Output: saw{}, Return: w.diary.now()}
	w.diary.mu.Lock()
	defer w.diary.mu.Unlock()
	switch {
	case err == nil:
		w.diary.acked[value] = receipt.Last
	case refused(err):
		w.diary.refused++
		w.diary.never[value] = err
		return
	default:
		w.diary.unknown++
		op.Output = saw{unknown: true}
		op.Return = int64(1 << 62) // it may still happen
	}
	w.diary.ops = append(w.diary.ops, op)
}

// refused reports whether it is certain that the write never happens.
func refused(err error) bool {
	var p *view.Problem
	if !errors.As(err, &p) {
		return errors.Is(err, client.ErrUnreachable) && !errors.Is(err, client.ErrMaybeDone)
	}
	return p.Code != "unknown_outcome" && p.Code != "timeout" && p.Code != "internal"
}

func (w *worker) read(register int) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	called := w.diary.now()
	text, err := w.client.Get(ctx, "/api/v1/robots/"+w.robots[register], url.Values{"read": {"linearizable"}})
	returned := w.diary.now()
	if err != nil {
		w.diary.noRead(err)
		return
	}
	var r view.Robot
	if err := json.Unmarshal(text, &r); err != nil {
		panic(err)
	}
	w.diary.mu.Lock()
	defer w.diary.mu.Unlock()
	w.diary.reads++
	w.diary.ops = append(w.diary.ops, porcupine.Operation{
		ClientId: w.id, Input: asked{register: register}, Call: called, Output: saw{value: r.Labels[label]}, Return: returned})
}

// check compares what the clients saw with the model and with every robot's log.
func (d *diary) check(t *testing.T, f *trial.Fleet) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	t.Logf("%d writes acknowledged, %d refused, %d unknown, %d linearizable reads", len(d.acked), d.refused, d.unknown, d.reads)
	if len(d.acked) < 20 || d.reads < 20 {
		t.Errorf("the fleet hardly answered: %d writes, %d reads; the last read that failed: %v", len(d.acked), d.reads, d.lastNoRead)
	}
	result, info := porcupine.CheckOperationsVerbose(registers(), d.ops, time.Minute)
	switch result {
	case porcupine.Illegal:
		path := t.ArtifactDir() + "/history.html"
		if err := porcupine.VisualizePath(registers(), info, path); err != nil {
			t.Error(err)
		}
		t.Errorf("what the clients saw is not linearizable; see %s\n%s", path, strings.Join(d.impossible(), "\n"))
	case porcupine.Unknown:
		t.Error("the history could not be checked within a minute")
	}
	for _, r := range f.Robots {
		d.checkLog(t, f, r)
	}
}

// impossible are reads that cannot be, in words, at most ten: of a value that
// nobody wrote, or of one that another write had replaced for certain before the
// read began. It is for people; porcupine sees more.
func (d *diary) impossible() (found []string) {
	writes := map[string]porcupine.Operation{}
	for _, op := range d.ops {
		if in := op.Input.(asked); in.write != "" {
			writes[in.write] = op
		}
	}
	at := func(ns int64) time.Duration { return time.Duration(ns).Round(100 * time.Microsecond) }
	for _, r := range d.ops {
		in, value := r.Input.(asked), r.Output.(saw).value
		if in.write != "" || value == "" || len(found) == 10 {
			continue
		}
		of, written := writes[value]
		if !written {
			found = append(found, fmt.Sprintf("client %d read %q of register %d at %v; nobody wrote it (%v)", r.ClientId, value, in.register, at(r.Call), d.never[value]))
			continue
		}
		for name, w := range writes {
			if w.Input.(asked).register == in.register && !w.Output.(saw).unknown && w.Call > of.Return && w.Return < r.Call {
				found = append(found, fmt.Sprintf("client %d read %q (event %d, written %v to %v) of register %d from %v to %v; %q (event %d) was written from %v to %v",
					r.ClientId, value, d.acked[value], at(of.Call), at(of.Return), in.register, at(r.Call), at(r.Return), name, d.acked[name], at(w.Call), at(w.Return)))
				break
			}
		}
	}
	return found
}

// checkLog: acknowledged writes are there, at the event that was named, once;
// others at most once.
func (d *diary) checkLog(t *testing.T, f *trial.Fleet, r *trial.Robot) {
	t.Helper()
	c := f.Client(r)
	found := map[string]uint64{}
	for since := uint64(0); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		page, err := c.Events(ctx, since, view.EventFilter{Type: "robot.labels_changed"}, 1000)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			since = e.Seq
			var change struct {
				Set map[string]string `json:"set"`
			}
			if err := json.Unmarshal(e.Data, &change); err != nil {
				t.Fatal(err)
			}
			value := change.Set[label]
			if value == "" {
				continue
			}
			if err, refused := d.never[value]; refused {
				t.Errorf("%s: %s happened, at %d, and was refused: %v", r.Name, value, e.Seq, err)
			}
			if earlier, twice := found[value]; twice {
				t.Errorf("%s: %s happened twice, at %d and %d", r.Name, value, earlier, e.Seq)
			}
			found[value] = e.Seq
		}
		if !page.More {
			break
		}
	}
	for value, seq := range d.acked {
		if found[value] != seq {
			t.Errorf("%s: the acknowledged write %s of event %d is at %d", r.Name, value, seq, found[value])
		}
	}
}
