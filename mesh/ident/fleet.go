package ident

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// ErrBadFleetFile: the file is no fleet file, or was changed.
var ErrBadFleetFile = errors.New("fleet file is not valid")

// ErrBadToken: the text is no join token.
var ErrBadToken = errors.New("join token is not valid")

const fleetFileFormat = "skein-fleet/1"

// FleetFile is what a robot image carries so that the robot joins on its own.
// It holds no gossip key and no root private key: who steals it can only ask
// to join, and an admin ends that by revoking the enrolment key.
type FleetFile struct {
	Format string            `json:"format"`
	Name   string            `json:"name"`
	Fleet  FleetID           `json:"fleet"`
	Root   ed25519.PublicKey `json:"root"`
	// EnrolmentSeed is the secret that signs requests to join.
	EnrolmentSeed []byte `json:"enrolmentSeed"`
}

// NewFleetFile describes the fleet of root, with enrolment as its key to join.
func NewFleetFile(name string, root ed25519.PublicKey, enrolment Key) FleetFile {
	return FleetFile{fleetFileFormat, name, FleetIDOf(root), root, enrolment.Seed()}
}

// Enrolment is the key that signs requests to join.
func (f FleetFile) Enrolment() (Key, error) { return KeyFromSeed(f.EnrolmentSeed) }

// Check reports what is wrong with the file's content, as ErrBadFleetFile.
func (f FleetFile) Check() error {
	switch {
	case f.Format != fleetFileFormat:
		return fmt.Errorf("%w: format is %q, want %q", ErrBadFleetFile, f.Format, fleetFileFormat)
	case len(f.Root) != ed25519.PublicKeySize || FleetIDOf(f.Root) != f.Fleet:
		return fmt.Errorf("%w: fleet id and root key do not belong together", ErrBadFleetFile)
	case len(f.EnrolmentSeed) != ed25519.SeedSize:
		return fmt.Errorf("%w: enrolment key has %d bytes, want %d", ErrBadFleetFile, len(f.EnrolmentSeed), ed25519.SeedSize)
	}
	return nil
}

// Save writes the file with mode 0600, never over an existing one.
func (f FleetFile) Save(path string) error {
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return createDurably(path, append(text, '\n'))
}

// LoadFleetFile reads and checks a fleet file. A missing file is fs.ErrNotExist.
func LoadFleetFile(path string) (FleetFile, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return FleetFile{}, fmt.Errorf("read fleet file: %w", err)
	}
	var f FleetFile
	if err := json.Unmarshal(text, &f); err != nil {
		return FleetFile{}, fmt.Errorf("%w: %s: %w; copy it again from `skein fleet init`", ErrBadFleetFile, path, err)
	}
	if err := f.Check(); err != nil {
		return FleetFile{}, fmt.Errorf("%s: %w; copy it again from `skein fleet init`", path, err)
	}
	return f, nil
}

const tokenPrefix = "skein-join-"

// JoinToken admits one robot once. The fleet stores only Hash; the text that
// String gives is shown to a person and carries the secret.
type JoinToken struct {
	Root   ed25519.PublicKey `json:"r"`
	Secret []byte            `json:"s"`
}

// NewJoinToken makes a token for the fleet of root with a 128-bit secret.
func NewJoinToken(root ed25519.PublicKey) JoinToken {
	secret := make([]byte, 16)
	rand.Read(secret)
	return JoinToken{root, secret}
}

// Hash identifies the token in the replicated log without giving it away:
// hex-free lower-case base32 of 15 bytes of SHA-256, 24 characters.
func (t JoinToken) Hash() string {
	sum := sha256.Sum256(append([]byte("skein/join-token\x00"), t.Secret...))
	return idEncoding.EncodeToString(sum[:nodeIDBytes])
}

// String is the text to type after `skein join`: prefix, root key and secret,
// with a 4-byte checksum against typing errors.
func (t JoinToken) String() string {
	body := append(append([]byte{}, t.Root...), t.Secret...)
	sum := sha256.Sum256(body)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(body, sum[:4]...))
}

// ParseJoinToken reads what String wrote. Errors are ErrBadToken.
func ParseJoinToken(text string) (JoinToken, error) {
	encoded, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !ok {
		return JoinToken{}, fmt.Errorf("%w: it starts with %q; copy it whole from `skein token create`", ErrBadToken, tokenPrefix)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) != ed25519.PublicKeySize+16+4 {
		return JoinToken{}, fmt.Errorf("%w: part of it is missing or mistyped; copy it whole from `skein token create`", ErrBadToken)
	}
	body := raw[:len(raw)-4]
	if sum := sha256.Sum256(body); string(sum[:4]) != string(raw[len(body):]) {
		return JoinToken{}, fmt.Errorf("%w: a character is mistyped; copy it again from `skein token create`", ErrBadToken)
	}
	return JoinToken{Root: body[:ed25519.PublicKeySize], Secret: body[ed25519.PublicKeySize:]}, nil
}
