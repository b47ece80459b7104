package raftgroup

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// repeatAfter is how long the same complaint of raft's stays unsaid: an
// unreachable voter makes it repeat one several times a second.
const repeatAfter = 30 * time.Second

// logSink passes raft's own log on to slog. Raft tells much at its levels info
// and warn that is normal in elections: that becomes debug. Its errors become
// warnings, each text of each peer at most every repeatAfter.
type logSink struct {
	log *slog.Logger

	mu   sync.Mutex
	said map[string]time.Time
}

// newRaftLogger gives raft a logger that writes to log.
func newRaftLogger(log *slog.Logger) hclog.Logger {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Level: hclog.Off, Output: io.Discard})
	logger.RegisterSink(&logSink{log: log, said: map[string]time.Time{}})
	return logger
}

// Accept implements hclog.SinkAdapter.
func (s *logSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	if level >= hclog.Error && s.due(msg, args) {
		to = slog.LevelWarn
	}
	if !s.log.Enabled(context.Background(), to) {
		return
	}
	attrs := make([]any, 0, len(args)+2)
	attrs = append(attrs, "said", msg)
	for i := 0; i+1 < len(args); i += 2 {
		attrs = append(attrs, camelCase(fmt.Sprint(args[i])), plainValue(args[i+1]))
	}
	s.log.Log(context.Background(), to, "raft", attrs...)
}

// due reports whether msg was not said lately of the same peer, and notes that it
// now is. Raft's messages are static and voters few, so the map stays small.
func (s *logSink) due(msg string, args []any) bool {
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == "peer" || args[i] == "target" {
			msg = fmt.Sprint(msg, " ", plainValue(args[i+1]))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if last, ok := s.said[msg]; ok && now.Sub(last) < repeatAfter {
		return false
	}
	s.said[msg] = now
	return true
}

// camelCase turns raft's kebab-case keys into ours.
func camelCase(key string) string {
	words := strings.FieldsFunc(key, func(r rune) bool { return r == '-' || r == '_' || r == ' ' })
	for i := 1; i < len(words); i++ {
		words[i] = strings.ToUpper(words[i][:1]) + words[i][1:]
	}
	return strings.Join(words, "")
}

// plainValue resolves hclog's lazy formats.
func plainValue(v any) any {
	if f, ok := v.(hclog.Format); ok && len(f) > 0 {
		return fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
	}
	return v
}
