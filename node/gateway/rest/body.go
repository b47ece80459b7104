package rest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"skein/node/gateway/exact"
)

// withBody reads the body of a request in place of the framework: at most so many
// bytes, within readTimeout, in JSON that is exactly what a value of type t is
// decoded from. Of what is announced to be longer not a byte is awaited.
func withBody(most int64, t reflect.Type) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		text, p := readBody(ctx, most)
		if p == nil && len(text) > 0 {
			p = fitBody(ctx.Header("Content-Type"), text, t)
		}
		if p != nil {
			refuse(ctx, *p)
			return
		}
		next(&bodyRead{ctx, bytes.NewReader(text)})
	}
}

type humaContext huma.Context // its own name collides with a method of it

// bodyRead is a request whose body has been read.
type bodyRead struct {
	humaContext
	text io.Reader
}

// BodyReader gives the body again.
func (b *bodyRead) BodyReader() io.Reader { return b.text }

// SetReadDeadline does nothing. net/http has lifted the deadline with the end of
// the body; another one would end a request that waits for the fleet.
func (b *bodyRead) SetReadDeadline(time.Time) error { return nil }

func readBody(ctx huma.Context, most int64) ([]byte, *failure) {
	if announced, err := strconv.ParseInt(ctx.Header("Content-Length"), 10, 64); err == nil && announced > most {
		return nil, tooLarge(ctx, most)
	}
	// A writer without deadlines, as that of a test, does without.
	if err := ctx.SetReadDeadline(time.Now().Add(readTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		p := problem(http.StatusBadRequest, "invalid", fmt.Sprintf("the body cannot be read: %v", err), "send it again")
		return nil, &p
	}
	text, err := io.ReadAll(io.LimitReader(ctx.BodyReader(), most+1))
	if int64(len(text)) > most {
		return nil, tooLarge(ctx, most)
	}
	if timeout, is := errors.AsType[net.Error](err); is && timeout.Timeout() {
		p := problem(http.StatusRequestTimeout, "timeout", fmt.Sprintf("the body did not come within %v", readTimeout), "send the whole body at once, again")
		return nil, &p
	}
	if err != nil {
		p := problem(http.StatusBadRequest, "invalid", "the body ended early or is not what its headers say", "send it again, whole")
		return nil, &p
	}
	return text, nil
}

// tooLarge ends the connection too: else the server would wait for what was
// announced, up to a bound of its own, before it answers.
func tooLarge(ctx huma.Context, most int64) *failure {
	ctx.SetHeader("Connection", "close")
	p := problem(http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the body has more than %d bytes", most),
		fmt.Sprintf("send at most %d bytes, and what is more in further requests", most))
	return &p
}

// fitBody looks into a body that is not empty.
func fitBody(contentType string, text []byte, t reflect.Type) *failure {
	kind, _, _ := strings.Cut(contentType, ";")
	if kind = strings.ToLower(strings.TrimSpace(kind)); kind != "" && kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		p := problem(http.StatusUnsupportedMediaType, "invalid", "the body is not said to be JSON", "send it with `Content-Type: application/json`")
		return &p
	}
	fault := exact.Check(text, t)
	if fault == nil {
		return nil
	}
	status := http.StatusUnprocessableEntity
	if fault.NotJSON {
		status = http.StatusBadRequest
	}
	detail := fault.Error()
	if fault.Path == "" {
		detail = "the body " + fault.Message
	}
	p := problem(status, "invalid", detail, fault.Next)
	p.Path = fault.Path
	return &p
}
