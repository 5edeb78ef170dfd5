"""Where a corpus is built: a folder or a place in an object store, behind one small set of operations."""

from tokenspace.store.base import Store as Store
from tokenspace.store.local import LocalStore as LocalStore
from tokenspace.store.remote import RemoteStore as RemoteStore
