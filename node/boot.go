package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"skein/mesh/ident"
)

const (
	// bootRandomBits make the number of a start unlike that of any other start,
	// also when a restored backup counts the same way twice.
	bootRandomBits = 20
	// maxBoots keeps a boot number within 53 bits, which JSON carries exactly.
	maxBoots = 1<<33 - 1
)

// nextBoot numbers this start: higher than all before it, because the newest
// boot's news win and its proposals are remembered. The count is on disk
// before the number is used.
func nextBoot(path string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("read boot count: %w", err)
	}
	count := uint64(0)
	if err == nil {
		if count, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err != nil || count >= maxBoots {
			return 0, fmt.Errorf("boot count in %s is damaged; write a number into it that is higher than the number of times this robot has started", path)
		}
	}
	count++
	if err := ident.ReplaceDurably(path, []byte(strconv.FormatUint(count, 10)+"\n")); err != nil {
		return 0, err
	}
	var b [4]byte
	rand.Read(b[:])
	low := uint64(b[0])<<16 | uint64(b[1])<<8 | uint64(b[2])
	return count<<bootRandomBits | low&(1<<bootRandomBits-1), nil
}
