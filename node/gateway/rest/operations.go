package rest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/node/gateway/auth"
	"skein/node/gateway/view"
)

const (
	// backupStall is how long one write to who fetches a backup may take.
	backupStall = 30 * time.Second
	// successorPoll is how often this node looks who leads after a transfer.
	successorPoll = 25 * time.Millisecond
)

type transferIn struct{ Body *view.Transfer }

// operations are what admins ask of one node.
func (s *Server) operations() {
	transfer := deciding(http.MethodPost, "/raft/transfer", "transferLeader", "The leader hands over to another voter; ask the leader")
	transfer.may = withScope(event.ScopeAdmin, false)
	add(s, transfer, func(ctx context.Context, in *transferIn) (*body[view.Transferred], error) {
		to := ident.NodeID("")
		if in.Body != nil {
			to = in.Body.To
		}
		return answer(s.transfer(ctx, to))
	})
	s.mux.HandleFunc("GET /api/v1/backup", s.backup)
	s.api.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "getBackup", Method: http.MethodGet, Path: "/api/v1/backup",
		Summary:  "A backup of the whole log, as one file; cut short if it fails, which `skein backup verify` finds",
		Security: []map[string][]string{{"token": {}}},
		Responses: map[string]*huma.Response{"200": {
			Description: "The backup", Content: map[string]*huma.MediaType{backupType: {Schema: &huma.Schema{Type: "string", Format: "binary"}}}}},
	})
}

// transfer makes the leader, which has to be this node, hand over.
func (s *Server) transfer(ctx context.Context, to ident.NodeID) (view.Transferred, error) {
	raft, p := s.cfg.Fleet.Raft(), s.cfg.Fleet.Look()
	if raft.State != "leader" {
		return view.Transferred{}, notLeader(p)
	}
	if to == raft.Node {
		return view.Transferred{}, problem(http.StatusConflict, "conflict", "this node leads already", "name another voter, or none").Problem
	}
	if to != "" && !slices.Contains(raft.Voters, to) {
		return view.Transferred{}, problem(http.StatusUnprocessableEntity, "invalid", fmt.Sprintf("%s does not vote, so it cannot lead", clip(string(to))), "`skein status` names the voters").Problem
	}
	if err := s.cfg.Node.TransferLeader(ctx, to); err != nil {
		return view.Transferred{}, err
	}
	done := view.Transferred{From: ref(p, raft.Node)}
	poll := time.NewTicker(successorPoll)
	defer poll.Stop()
	for {
		p = s.cfg.Fleet.Look()
		if l := p.Fleet.Leader; l != nil && l.ID != raft.Node {
			leader := *l
			done.To = &leader
			return done, nil
		}
		select {
		case <-ctx.Done():
			return done, nil // it has handed over; this node has not heard to whom
		case <-poll.C:
		}
	}
}

// notLeader says whom to ask instead.
func notLeader(p view.Picture) *view.Problem {
	l := p.Fleet.Leader
	if l == nil {
		return &view.Problem{Status: http.StatusServiceUnavailable, Code: "no_leader", Detail: "no leader is known here", Next: "try again", RetryAfterMillis: noLeaderRetryMillis}
	}
	next := "ask it: `skein status` says where it is"
	for _, r := range p.Robots {
		if r.ID == l.ID && r.HTTP != "" {
			next = "ask it at " + r.HTTP
		}
	}
	return &view.Problem{Status: http.StatusConflict, Code: "not_leader", Detail: fmt.Sprintf("this node does not lead, %s (%s) does", l.Name, l.ID), Next: next}
}

func ref(p view.Picture, id ident.NodeID) view.NodeRef {
	for _, r := range p.Robots {
		if r.ID == id {
			return view.NodeRef{ID: id, Name: r.Name}
		}
	}
	return view.NodeRef{ID: id, Name: id.Short()}
}

const backupType = "application/vnd.skein.backup"

// backup streams a backup. It is no operation of the framework's, which would
// hold it in memory.
func (s *Server) backup(w http.ResponseWriter, r *http.Request) {
	if _, _, err := s.admit(r.Context(), r.Header.Values("Authorization"), withScope(event.ScopeAdmin, true)); err != nil {
		WriteProblem(w, fail(err).(failure).Problem)
		return
	}
	// Elsewhere the framework refuses these. Asked for a moment, say, a backup of the
	// present is not what was asked for.
	if query := r.URL.RawQuery; query != "" {
		name, _, _ := strings.Cut(query, "=")
		p := problem(http.StatusUnprocessableEntity, "invalid", "a backup takes no query parameters, there is "+clip(name), "ask without; a backup is of the present")
		p.Path = "query." + clip(name)
		WriteProblem(w, p.Problem)
		return
	}
	out := &steady{w: w, control: http.NewResponseController(w)}
	err := s.cfg.Node.Backup(r.Context(), out)
	switch {
	case err == nil:
	case out.began:
		// Too late for an answer: who fetches must see that the file is not whole.
		s.cfg.Log.Warn("backup ended early", "remote", auth.RemoteKey(r.RemoteAddr), "err", err)
		panic(http.ErrAbortHandler)
	case errors.Is(err, context.Canceled):
	default:
		WriteProblem(w, fail(err).(failure).Problem)
	}
}

// steady is an answer that may take as long as it moves.
type steady struct {
	w       http.ResponseWriter
	control *http.ResponseController
	began   bool
}

// Write gives every piece its own deadline.
func (s *steady) Write(p []byte) (int, error) {
	if !s.began {
		s.began = true
		s.w.Header().Set("Content-Type", backupType)
		s.w.Header().Set("Content-Disposition", `attachment; filename="fleet.skein-backup"`)
	}
	// Without deadlines (a test's recorder) the server's own stays.
	if err := s.control.SetWriteDeadline(time.Now().Add(backupStall)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, fmt.Errorf("send backup: %w", err)
	}
	return s.w.Write(p)
}

var _ io.Writer = (*steady)(nil)
