package rescue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"skein/consensus/audit"
)

// Audit audits the copy of the log in a data directory, whether the node runs
// or not. It takes no lock and changes nothing.
func Audit(ctx context.Context, data string) (*audit.Report, error) {
	dir := filepath.Join(data, "log")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s has no folder %q with a copy of the fleet's log; say where the node's data directory is with --data", ErrNoNode, data, "log")
	} else if err != nil {
		return nil, err
	}
	return audit.Directory(ctx, dir, runs(data))
}
