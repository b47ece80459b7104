// Package proc starts the members of a system as processes of their own and
// gives them orders.
//
// A member is this very program, started again with the word "member" and a
// Spec. It says when it is ready, obeys orders, one after another, and ends
// when its standard input ends: so no member outlives the program that started
// it, however that ends. Orders and answers are JSON objects, one a line.
//
// Start and Process are the starter's side, Serve is the member's. All packages
// of this module may import it.
package proc

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Role is the first argument of a program that is to be a member.
const Role = "member"

// Spec says what a member is. All members of a cluster have the same, but for
// Index.
type Spec struct {
	// System is which kind of member: "skein", "bare", "etcd", "jetstream".
	System string
	// Variant is the store, or another setting that tells clusters of a system apart.
	Variant string
	// Dir is the cluster's; each member has a folder of its own in it.
	Dir string
	// Index is which member this is, from 0. The founder is member 0.
	Index int
	// Ports are two TCP ports on loopback for each member.
	Ports [][2]int
	// Again: the member was there before and starts on what it left.
	Again bool
}

// Own is the folder of this member.
func (s Spec) Own() string { return filepath.Join(s.Dir, fmt.Sprintf("member%d", s.Index)) }

// Process is a running member.
type Process struct {
	// Spec is what it was started with.
	Spec Spec
	// PID is its process id.
	PID int

	cmd    *exec.Cmd
	stdin  io.WriteCloser
	ended  chan struct{}
	stderr *tail

	mu    sync.Mutex // one order at a time
	lines chan []byte
}

// order is one order, answer what became of it.
type order struct {
	Order    string          `json:"order"`
	Argument json.RawMessage `json:"argument,omitempty"`
}

type answer struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// readyTimeout bounds the start of a member, orderTimeout an order whose
// context has no deadline, endTimeout an orderly end.
const (
	readyTimeout = 30 * time.Second
	orderTimeout = 30 * time.Second
	endTimeout   = 5 * time.Second
)

// Start starts a member and returns when it is ready. Who starts it must End
// or Kill it.
func Start(ctx context.Context, s Spec) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	spec, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, Role, string(spec))
	p := &Process{Spec: s, cmd: cmd, ended: make(chan struct{}), stderr: &tail{}, lines: make(chan []byte, 1)}
	cmd.Stderr = p.stderr
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a member of %s: %w", s.System, err)
	}
	p.PID = cmd.Process.Pid
	go p.receive(stdout) // ends with the process
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := p.answer(ctx, nil); err != nil {
		p.Kill()
		return nil, fmt.Errorf("member %d of %s %s did not start: %w", s.Index, s.System, s.Variant, err)
	}
	return p, nil
}

// receive reads answers until the process ends, and buries it.
func (p *Process) receive(stdout io.Reader) {
	in := bufio.NewReader(stdout)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			break
		}
		p.lines <- line
	}
	p.cmd.Wait() // how it ended is told by stderr and by orders that fail
	close(p.ended)
}

// Ask gives an order and reads its result into result, unless that is nil.
func (p *Process) Ask(ctx context.Context, name string, argument, result any) error {
	encoded, err := json.Marshal(argument)
	if err != nil {
		return err
	}
	line, err := json.Marshal(order{name, encoded})
	if err != nil {
		return err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, orderTimeout)
		defer cancel()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.stdin.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("%s: %w%s", name, err, p.stderr)
	}
	if err := p.answer(ctx, result); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (p *Process) answer(ctx context.Context, result any) error {
	var line []byte
	select {
	case line = <-p.lines:
	case <-p.ended:
		return fmt.Errorf("the process has ended%s", p.stderr)
	case <-ctx.Done():
		return fmt.Errorf("no answer: %w%s", ctx.Err(), p.stderr)
	}
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		return fmt.Errorf("answer %q: %w", line, err)
	}
	if a.Error != "" {
		return errors.New(a.Error)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(a.Result, result)
}

// Kill ends the process as a power cut does, and waits for its end.
func (p *Process) Kill() {
	p.cmd.Process.Kill() // an error says that it has ended already
	p.stdin.Close()
	<-p.ended
}

// End lets the process end in order, and kills it if that takes long.
func (p *Process) End() {
	p.stdin.Close()
	select {
	case <-p.ended:
	case <-time.After(endTimeout):
		p.Kill()
	}
}

// tail keeps the last bytes that were written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailBytes = 4 << 10

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if over := len(t.text) - tailBytes; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(b), nil
}

// String is what the member last said, for an error.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.text) == 0 {
		return ""
	}
	return "; it said: " + strings.TrimSpace(string(t.text))
}

// FreePorts finds two ports for each of n members. Nothing keeps them free; the
// members take them at once.
func FreePorts(n int) ([][2]int, error) {
	ports := make([][2]int, n)
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	for i := range ports {
		for j := range ports[i] {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return nil, fmt.Errorf("find a free port: %w", err)
			}
			held = append(held, l)
			ports[i][j] = l.Addr().(*net.TCPAddr).Port
		}
	}
	return ports, nil
}
