package systemd

import (
	"fmt"
	"strconv"
	"strings"
)

// storePrefix begins the names of all that is stored with systemd by us.
const storePrefix = "baton-"

// maxName is what systemd takes.
const maxName = 255

// StoreName is the name under which something that is called key is stored. ok
// is false if systemd would not take it, since it is too long.
//
// systemd's names are printable ASCII without colons; the rest is written as in
// URLs.
func StoreName(key string) (name string, ok bool) {
	var b strings.Builder
	b.WriteString(storePrefix)
	for i := range len(key) {
		if c := key[i]; c <= ' ' || c >= 0x7f || c == ':' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String(), b.Len() <= maxName
}

// StoredKey is the inverse of StoreName; ok is false for what others stored or
// called.
func StoredKey(name string) (key string, ok bool) {
	rest, ok := strings.CutPrefix(name, storePrefix)
	if !ok {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(rest); i++ {
		c := rest[i]
		if c == '%' {
			if i+2 >= len(rest) {
				return "", false
			}
			n, err := strconv.ParseUint(rest[i+1:i+3], 16, 8)
			if err != nil {
				return "", false
			}
			c, i = byte(n), i+2
		}
		b.WriteByte(c)
	}
	if again, ok := StoreName(b.String()); !ok || again != name {
		return "", false
	}
	return b.String(), true
}
