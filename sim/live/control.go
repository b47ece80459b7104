package live

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// socketName is the control socket in the fleet's folder, mode 0600.
const socketName = "dev.sock"

// commandTimeout bounds a command, its effect included.
const commandTimeout = 15 * time.Second

// ErrNotRunning: no fleet runs in the folder.
var ErrNotRunning = errors.New("no fleet runs here")

// Listed is one robot of a running fleet.
type Listed struct {
	Name string `json:"name"`
	// HTTP is its face, "" while it is dead.
	HTTP string `json:"http"`
}

// reply is the answer to every command: the fleet afterwards, or what is wrong.
type reply struct {
	Robots []Listed `json:"robots"`
	Error  string   `json:"error,omitempty"`
	// Missing tells "no such robot" from other errors.
	Missing bool `json:"missing,omitempty"`
}

func (f *Fleet) listen() (net.Listener, error) {
	path := f.path(socketName)
	// The folder is locked, so a socket that is there is a dead one's.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("clear control socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	return l, errors.Join(os.Chmod(path, 0o600))
}

// answer serves commands until ctx ends.
func (f *Fleet) answer(ctx context.Context, l net.Listener) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /robots", func(w http.ResponseWriter, _ *http.Request) { f.reply(w, nil) })
	mux.HandleFunc("POST /robots", func(w http.ResponseWriter, _ *http.Request) {
		_, err := f.add()
		f.reply(w, err)
	})
	mux.HandleFunc("POST /robots/{name}/start", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		_, ok := f.robots[r.PathValue("name")]
		f.mu.Unlock()
		if !ok {
			f.reply(w, fmt.Errorf("%w: %s; `skein dev add` makes one more", ErrNoSuchRobot, r.PathValue("name")))
			return
		}
		f.reply(w, f.boot(r.PathValue("name")))
	})
	mux.HandleFunc("POST /robots/{name}/kill", func(w http.ResponseWriter, r *http.Request) { f.reply(w, f.kill(r.PathValue("name"))) })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: commandTimeout, ReadTimeout: commandTimeout, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		f.failed <- fmt.Errorf("control socket: %w", err)
	}
}

func (f *Fleet) reply(w http.ResponseWriter, err error) {
	r := reply{Robots: f.list()}
	if err != nil {
		r.Error, r.Missing = err.Error(), errors.Is(err, ErrNoSuchRobot)
		w.WriteHeader(http.StatusConflict)
	}
	json.NewEncoder(w).Encode(r)
}

// Command sends a command to the fleet that runs in the folder data: action is
// "list", "add", "start" or "kill", the last two with a robot's name. It
// returns the robots as they are afterwards.
func Command(ctx context.Context, data, action, name string) ([]Listed, error) {
	method, path := http.MethodPost, "/robots/"+url.PathEscape(name)+"/"+action
	switch action {
	case "list":
		method, path = http.MethodGet, "/robots"
	case "add":
		path = "/robots"
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://dev"+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(data, socketName)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %s; start one with `skein dev`", ErrNotRunning, data)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("read answer of the fleet: %w", err)
	}
	var r reply
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&r); err != nil {
		return nil, fmt.Errorf("read answer of the fleet: %w", err)
	}
	switch {
	case r.Missing:
		return r.Robots, fmt.Errorf("%w%s", ErrNoSuchRobot, strings.TrimPrefix(r.Error, ErrNoSuchRobot.Error()))
	case r.Error != "":
		return r.Robots, errors.New(r.Error)
	}
	return r.Robots, nil
}
