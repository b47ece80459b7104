package rest

import (
	"context"
	"net/http"
	"strings"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/node/gateway/auth"
	"skein/node/gateway/view"
)

// maxProposalBytes is a full batch with its JSON around it.
const maxProposalBytes = event.MaxBatchBytes + 256<<10

type loginIn struct{ Body view.Login }

func (s *Server) logins() {
	add(s, route{method: http.MethodGet, path: "/api/v1/login", id: "getLogin", summary: "What a person has to sign to log in here"},
		func(ctx context.Context, _ *nothing) (*body[view.LoginInfo], error) {
			c := callerOf(ctx)
			if !s.limiter.Allow(c.remote, s.cfg.Now()) {
				return nil, auth.RateLimited()
			}
			return answer(s.cfg.Auth.Info(ctx))
		})
	add(s, route{method: http.MethodPost, path: "/api/v1/login", id: "login", summary: "Log a person in, by signature or one-time code"}, s.login)
	add(s, route{method: http.MethodPost, path: "/api/v1/login/code", id: "makeLoginCode",
		summary: "A one-time code that logs the same person in elsewhere", may: persons},
		func(ctx context.Context, _ *nothing) (*body[view.LoginCode], error) {
			c := callerOf(ctx)
			code, err := s.cfg.Auth.NewCode(ctx, c.token)
			code.URL = s.loginURL(ctx, c.host, code.Code)
			return answer(code, err)
		})
}

// loginURL leads to the console that the caller reached, or, over the control
// socket, to the one that others reach. The code is in the fragment, which
// browsers keep to themselves.
func (s *Server) loginURL(ctx context.Context, host, code string) string {
	base := "http://" + host
	if auth.IsLocal(ctx) {
		base = s.cfg.Node.URL()
	}
	return strings.TrimSuffix(base, "/") + "/#login=" + code
}

func (s *Server) login(ctx context.Context, in *loginIn) (*body[view.Session], error) {
	c, now := callerOf(ctx), s.cfg.Now()
	if !s.limiter.Allow(c.remote, now) {
		return nil, auth.RateLimited()
	}
	session, err := s.cfg.Auth.Login(ctx, in.Body)
	if err != nil {
		s.limiter.Failed(c.remote, now)
		s.cfg.Log.Info("login refused", "remote", c.remote, "person", clip(in.Body.Person), "err", err)
	}
	return answer(session, err)
}

type proposeIn struct{ Body view.Proposal }
type tokenIn struct{ Body view.TokenRequest }

func (s *Server) requests() {
	post := func(path, id, summary string, may rule) route {
		return route{method: http.MethodPost, path: "/api/v1" + path, id: id, summary: summary, may: may, timeout: decideTimeout}
	}
	propose := post("/events", "propose", "Get events decided, all or none", persons)
	propose.maxBody = maxProposalBytes
	add(s, propose, func(ctx context.Context, in *proposeIn) (*body[view.Receipt], error) {
		if n := len(in.Body.Drafts); n == 0 || n > event.MaxDrafts {
			return nil, event.Refuse(event.CodeInvalid, "", "send 1 to 512 drafts", "there are %d drafts", n)
		}
		return answer(s.cfg.Proposer.Propose(ctx, callerOf(ctx).token, in.Body.Drafts))
	})
	add(s, post("/tokens", "makeToken", "A one-time token that lets one robot join", withScope(event.ScopeAdmin, false)),
		func(ctx context.Context, in *tokenIn) (*body[view.Token], error) {
			return answer(s.makeToken(ctx, in.Body.TTLSeconds))
		})
	add(s, post("/leave", "leave", "This node leaves the fleet and stops", withScope(event.ScopeAdmin, true)),
		func(ctx context.Context, _ *nothing) (*body[view.LeaveAnswer], error) {
			return answer(view.LeaveAnswer{Left: true}, s.cfg.Node.Leave(ctx))
		})
}

// makeToken gets a token decided by its hash; its secret goes to the caller only.
func (s *Server) makeToken(ctx context.Context, ttlSeconds int) (view.Token, error) {
	if ttlSeconds < 1 || ttlSeconds > event.MaxTokenSeconds {
		return view.Token{}, event.Refuse(event.CodeInvalid, "", "choose from a second to a week", "a join token cannot be good for %d seconds", ttlSeconds)
	}
	token := ident.NewJoinToken(s.cfg.Root)
	draft := event.TokenCreated{TTLSeconds: uint64(ttlSeconds)}.Draft(token.Hash())
	receipt, err := s.cfg.Proposer.Propose(ctx, callerOf(ctx).token, []view.Draft{draft})
	if err != nil {
		return view.Token{}, err
	}
	// It ends by the time in the log; this node's clock stands in until it has that.
	decided := s.cfg.Now()
	page, err := s.cfg.Events.Query(ctx, view.EventQuery{After: receipt.First - 1, Before: receipt.First + 1, Limit: 1})
	if err == nil && len(page.Events) == 1 {
		decided = page.Events[0].Time
	}
	return view.Token{Token: token.String(), ExpiresAt: decided.Add(time.Duration(ttlSeconds) * time.Second).UTC()}, nil
}
