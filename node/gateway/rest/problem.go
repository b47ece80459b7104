package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"skein/consensus/event"
	"skein/node/gateway/view"
)

// failure is a Problem as the framework wants its errors.
type failure struct{ *view.Problem }

// GetStatus, ContentType and GetHeaders are how the framework asks.
func (f failure) GetStatus() int { return f.Status }

func (f failure) ContentType(string) string { return problemType }

func (f failure) GetHeaders() http.Header {
	h := http.Header{}
	if f.RetryAfterMillis > 0 {
		h.Set("Retry-After", strconv.FormatInt((f.RetryAfterMillis+999)/1000, 10))
	}
	if f.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	return h
}

const problemType = "application/problem+json"

// codeOf is the code of problems that have none of their own.
func codeOf(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "unauthenticated"
	case http.StatusForbidden:
		return "not_allowed"
	case http.StatusNotFound:
		return "not_found"
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return "timeout"
	case http.StatusRequestEntityTooLarge:
		return "too_large"
	case http.StatusTooManyRequests:
		return "rate_limited"
	}
	if status >= 500 {
		return "internal"
	}
	return "invalid"
}

// fail turns any error of a handler into an answer.
func fail(err error) error {
	if p, is := errors.AsType[*view.Problem](err); is {
		q := *p
		q.Title = http.StatusText(q.Status)
		return failure{&q}
	}
	if f, is := event.FaultOf(err); is {
		return failure{problemOfFault(f)}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return problem(http.StatusGatewayTimeout, "timeout", "the fleet did not answer in time", "try again; `skein status` shows whether there is a leader")
	}
	return problem(http.StatusInternalServerError, "internal", "this node failed: "+err.Error(), "see its log")
}

func problem(status int, code, detail, next string) failure {
	return failure{&view.Problem{Title: http.StatusText(status), Status: status, Code: code, Detail: detail, Next: next}}
}

// codeTimeout: a read was not brought up to what was asked for in time.
const codeTimeout event.Code = "timeout"

// faultStatus is the HTTP status for each class of refusal of the log.
func faultStatus(code event.Code) int {
	switch code {
	case event.CodeInvalid, event.CodeUnknownType:
		return http.StatusUnprocessableEntity
	case event.CodeNotAllowed:
		return http.StatusForbidden
	case event.CodeConflict:
		return http.StatusConflict
	case event.CodeNotFound:
		return http.StatusNotFound
	case event.CodeBusy, event.CodeNoLeader:
		return http.StatusServiceUnavailable
	case event.CodeUnknownOutcome, codeTimeout:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

// noLeaderRetryMillis is about one election.
const noLeaderRetryMillis = 1000

func problemOfFault(f *event.Fault) *view.Problem {
	status := faultStatus(f.Code)
	p := &view.Problem{
		Title: http.StatusText(status), Status: status, Code: string(f.Code),
		Reason: string(f.Reason), Detail: f.Message, Next: f.Next, Path: f.Path, RetryAfterMillis: f.RetryAfterMillis,
	}
	if status == http.StatusServiceUnavailable && p.RetryAfterMillis == 0 {
		p.RetryAfterMillis = noLeaderRetryMillis
	}
	return p
}

// maxListed bounds how many faults of one request are spelled out.
const maxListed = 5

// asProblem is the transformer that turns the framework's own errors (input
// that does not fit the schema, a body too large) into Problems.
func asProblem(_ huma.Context, _ string, v any) (any, error) {
	e, is := v.(*huma.ErrorModel)
	if !is {
		return v, nil
	}
	p := &view.Problem{Title: http.StatusText(e.Status), Status: e.Status, Code: codeOf(e.Status), Detail: e.Detail}
	if e.Status >= 500 {
		p.Next = "see this node's log"
		return p, nil
	}
	p.Next = "see /openapi.json for what is expected"
	var texts []string
	for i, d := range e.Errors {
		if i == maxListed {
			texts = append(texts, fmt.Sprintf("%d more", len(e.Errors)-i))
			break
		}
		// What was sent is not repeated: it may be a secret, and it may be large.
		texts = append(texts, strings.TrimSpace(d.Location+" "+d.Message))
	}
	if len(texts) > 0 {
		p.Detail += ": " + strings.Join(texts, "; ")
		p.Path = strings.TrimPrefix(e.Errors[0].Location, "body.")
	}
	return p, nil
}
