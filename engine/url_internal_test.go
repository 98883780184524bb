package engine

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFileURL(t *testing.T) {
	for _, c := range []struct {
		path    string
		windows bool
		want    string
	}{
		{"/media/s/c/a.png", false, "file:///media/s/c/a.png"},
		{"/my media/100%/a#b?c.png", false, "file:///my%20media/100%25/a%23b%3Fc.png"},
		{"/日の出/a.png", false, "file:///%E6%97%A5%E3%81%AE%E5%87%BA/a.png"},
		{"/a\\b\xff\n[1]/x", false, "file:///a%5Cb%FF%0A%5B1%5D/x"},
		{`C:\media\s\a.png`, true, "file:///C:/media/s/a.png"},
		{`C:\my media\100%\a#b.png`, true, "file:///C:/my%20media/100%25/a%23b.png"},
		{`\\nas\media\a b.png`, true, "file://nas/media/a%20b.png"},
		{`\\?\D:\long\a.png`, true, "file:///D:/long/a.png"},
		{`\\?\UNC\nas\media\a.png`, true, "file://nas/media/a.png"},
	} {
		got := fileURL(c.path, c.windows)
		require.Equal(t, c.want, got)
		back, err := url.Parse(got)
		require.NoError(t, err)
		if !c.windows {
			require.Equal(t, c.path, back.Path)
		}
	}
}
