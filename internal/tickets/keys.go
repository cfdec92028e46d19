// Package tickets keeps the keys that TLS session tickets are sealed with. The
// processes of a service share them, so that a client resumes its session at
// any worker, also at one that was started since.
package tickets

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
)

// keySize is what crypto/tls takes.
const keySize = 32

// Keys are in the order of tls.Config.SetSessionTicketKeys: the first seals new
// tickets, all open old ones.
type Keys [][keySize]byte

// Bytes is the form in which keys travel between processes.
func (k Keys) Bytes() []byte {
	b := make([]byte, 0, len(k)*keySize)
	for _, key := range k {
		b = append(b, key[:]...)
	}
	return b
}

// ParseKeys reads what Bytes wrote. The error does not tell what is in b.
func ParseKeys(b []byte) (Keys, error) {
	if len(b) == 0 || len(b)%keySize != 0 {
		return nil, fmt.Errorf("session ticket keys: %d bytes, expected a multiple of %d", len(b), keySize)
	}
	k := make(Keys, len(b)/keySize)
	for i := range k {
		copy(k[i][:], b[i*keySize:])
	}
	return k, nil
}

// For derives the keys of one listener. A ticket of one must not be good for
// another: a session would get past the client certificate that only the other
// asks for.
func (k Keys) For(listener string) Keys {
	out := make(Keys, len(k))
	for i, key := range k {
		b, err := hkdf.Key(sha256.New, key[:], nil, "baton session tickets of listener "+listener, keySize)
		if err != nil {
			panic("tickets: " + err.Error()) // only for lengths that are no key's
		}
		copy(out[i][:], b)
	}
	return out
}
