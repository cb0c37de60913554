//! Keeps a statically linked program from loading modules of another C library.
//!
//! glibc looks host names and users up through the modules that `/etc/nsswitch.conf` names, `resolve` or `myhostname` on
//! most desktops. Even a static program loads them, and with them the C library of the machine, which is seldom the one it
//! was linked with: it dies of SIGFPE or a failed relocation. Linking this crate pins the look-ups to the modules that are
//! part of the program: hosts to `/etc/hosts` and then the name servers of `/etc/resolv.conf`, with all of that file's
//! rules; users to `/etc/passwd`. Every look-up of every library is covered, so a program needs no resolver of its own.
//!
//! A program links it with `use nss as _;`.
