#!/usr/bin/env bash
# usage: stubs.sh SDK LIBSYSTEM_TBD
# Writes a minimal link-time "SDK" of text stubs: the symbols that generated projects import from the Apple libraries.
set -euo pipefail
sdk=$1
libsystem=$2
frameworks=$sdk/System/Library/Frameworks
mkdir -p "$sdk/usr/lib"
python3 - "$libsystem" "$sdk/usr/lib/libSystem.tbd" <<'PY'
import re, sys
text = open(sys.argv[1]).read()
text = re.sub(r",\s*arm64e\.x1-[a-z]+", "", text).replace("arm64e-", "arm64-")
open(sys.argv[2], "w").write(text)
PY
for name in c m pthread dl; do ln -sf libSystem.tbd "$sdk/usr/lib/lib$name.tbd"; done
stub() {
    cat >"$1" <<TBD
--- !tapi-tbd
tbd-version:     4
targets:         [ arm64-macos ]
install-name:    '$2'
exports:
  - targets:         [ arm64-macos ]
    symbols:         [ $3 ]
...
TBD
}
framework() {
    mkdir -p "$frameworks/$1.framework"
    stub "$frameworks/$1.framework/$1.tbd" "/System/Library/Frameworks/$1.framework/Versions/A/$1" "$2"
}
stub "$sdk/usr/lib/libobjc.tbd" /usr/lib/libobjc.A.dylib "_class_getInstanceMethod, _class_getClassMethod, _class_getName, _class_isMetaClass, _class_getSuperclass, _class_getInstanceSize, _class_addMethod, _class_addIvar, _class_addProtocol, _class_getInstanceVariable, _class_conformsToProtocol, _ivar_getOffset, _method_getName, _method_getTypeEncoding, _method_getImplementation, _objc_alloc, _objc_alloc_init, _objc_opt_new, _objc_opt_class, _objc_opt_self, _objc_allocateClassPair, _objc_registerClassPair, _objc_disposeClassPair, _objc_getProtocol, _objc_autorelease, _objc_autoreleaseReturnValue, _objc_autoreleasePoolPop, _objc_autoreleasePoolPush, _objc_getClass, _objc_lookUpClass, _objc_msgSend, _objc_msgSendSuper, _objc_release, _objc_retain, _objc_retainAutorelease, _objc_retainAutoreleaseReturnValue, _objc_retainAutoreleasedReturnValue, _objc_retainBlock, _objc_storeWeak, _objc_initWeak, _objc_loadWeakRetained, _objc_destroyWeak, _objc_exception_throw, _objc_copyClassList, _object_getClass, _object_getIndexedIvars, _protocol_getName, _sel_getName, _sel_registerName"
stub "$sdk/usr/lib/libiconv.tbd" /usr/lib/libiconv.2.dylib "_iconv, _iconv_open, _iconv_close"
framework Metal "_MTLCreateSystemDefaultDevice, _MTLCopyAllDevices"
framework Foundation "_NSLog"
framework CoreFoundation "_CFRelease, _CFRetain, _CFEqual, _CFHash, _CFGetTypeID"
framework CoreGraphics "_CGMainDisplayID"
