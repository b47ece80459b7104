package proc

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"time"
)

// Member is the inside of a member process.
type Member interface {
	// Obey carries out an order of the system's own.
	Obey(ctx context.Context, order string, argument json.RawMessage) (any, error)
	// Close ends the member in order.
	Close() error
}

// closeTimeout is how long a member may take to end once its starter is gone.
const closeTimeout = 10 * time.Second

// Serve is the whole life of a member process: it starts the member of the
// spec, and obeys until standard input ends. The orders "profile", with the
// path of a file, and "unprofile" are its own.
func Serve(spec string, start func(context.Context, Spec) (Member, error)) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var s Spec
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		return fmt.Errorf("spec of a member: %w", err)
	}
	m, err := start(ctx, s)
	reply(nil, err)
	if err != nil {
		return err
	}
	var profile *os.File
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			time.AfterFunc(closeTimeout, func() { os.Exit(1) })
			return m.Close()
		}
		var o order
		if err == nil {
			err = json.Unmarshal(line, &o)
		}
		if err != nil {
			return errors.Join(err, m.Close())
		}
		switch o.Order {
		case "profile":
			profile, err = startProfile(o.Argument)
			reply(nil, err)
		case "unprofile":
			pprof.StopCPUProfile()
			reply(nil, profile.Close())
		default:
			result, err := m.Obey(ctx, o.Order, o.Argument)
			reply(result, err)
		}
	}
}

func startProfile(argument json.RawMessage) (*os.File, error) {
	var path string
	if err := json.Unmarshal(argument, &path); err != nil {
		return nil, err
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return f, pprof.StartCPUProfile(f)
}

// reply answers the order that was read last. That it cannot be written means
// that the starter is gone, which reading shows as well.
func reply(result any, err error) {
	var a answer
	if err == nil {
		a.Result, err = json.Marshal(result)
	}
	if err != nil {
		a.Error = err.Error()
	}
	line, err := json.Marshal(a)
	if err != nil {
		line = []byte(`{"error":"the answer cannot be encoded"}`)
	}
	os.Stdout.Write(append(line, '\n'))
}
