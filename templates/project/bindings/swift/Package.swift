// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "Forge",
    platforms: [.macOS(.v13)],
    products: [.library(name: "Forge", targets: ["Forge"])],
    targets: [
        // The C library and its header, as README.md above this folder makes them.
        .binaryTarget(name: "CForge", path: "CForge.xcframework"),
        .target(
            name: "Forge",
            dependencies: ["CForge"],
            linkerSettings: [.linkedFramework("Foundation"), .linkedFramework("Metal"), .linkedLibrary("objc")]
        ),
    ]
)
