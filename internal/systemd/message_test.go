package systemd

import (
	"strings"
	"testing"
	"time"
)

func TestAStatusIsOneLine(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"generation 7 serving", "STATUS=generation 7 serving"},
		{"refused: exit status 1\nMAINPID=1", "STATUS=refused: exit status 1 MAINPID=1"},
		{"a\x00b\x7fc\xffd", "STATUS=a b c d"},
		{strings.Repeat("x", maxStatus+1), "STATUS=" + strings.Repeat("x", maxStatus) + "…"},
		{strings.Repeat("x", maxStatus-1) + "öö", "STATUS=" + strings.Repeat("x", maxStatus-1) + "…"},
	} {
		if got := Status(c.text); got != c.want {
			t.Errorf("Status(%q) = %q, want %q", c.text, got, c.want)
		}
	}
}

func TestATimeIsExtendedByMicroseconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1500 * time.Millisecond: "EXTEND_TIMEOUT_USEC=1500000",
		-time.Second:            "EXTEND_TIMEOUT_USEC=0",
	} {
		if got := ExtendTimeout(d); got != want {
			t.Errorf("ExtendTimeout(%v) = %q, want %q", d, got, want)
		}
	}
}
