package member

import (
	"bytes"
	"context"
	"log"
	"log/slog"
)

// quiet brings memberlist's log lines to slog at level debug, whatever level
// they claim: what matters of them (who came, who went) is told by Members, and
// the rest is normal on a network where robots come and go.
func quiet(to *slog.Logger) *log.Logger { return log.New(lineWriter{to}, "", 0) }

type lineWriter struct{ to *slog.Logger }

func (w lineWriter) Write(line []byte) (int, error) {
	if w.to.Enabled(context.Background(), slog.LevelDebug) {
		w.to.Debug("memberlist says", "line", string(bytes.TrimSpace(line)))
	}
	return len(line), nil
}
